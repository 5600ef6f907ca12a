//! TLS as libpq understands it: `require` encrypts and looks at no certificate, `verify-full`
//! wants one that names the host.

use std::sync::Arc;

use backup_core::{Error, ErrorKind, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::server::{Server, SslMode};

pub(crate) fn connector(server: &Server) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::new(ErrorKind::Other, "set up TLS").with_source(e))?;
    let config = match (server.sslmode, server.sslrootcert.as_deref()) {
        (SslMode::VerifyFull, Some(file)) => builder.with_root_certificates(roots(file)?),
        _ => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified(provider))),
    };
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}

fn roots(file: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if file == "system" {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return match roots.is_empty() {
            true => Err(unusable("the system", "none can be read")),
            false => Ok(roots),
        };
    }
    let read = CertificateDer::pem_file_iter(file).map_err(|e| unusable(file, &e.to_string()))?;
    for certificate in read {
        let certificate = certificate.map_err(|e| unusable(file, &e.to_string()))?;
        roots
            .add(certificate)
            .map_err(|e| unusable(file, &e.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(unusable(file, "it has none")),
        false => Ok(roots),
    }
}

fn unusable(file: &str, why: &str) -> Error {
    let message = format!("sslrootcert: certificates of {file}: {why}");
    Error::new(ErrorKind::Invalid, message)
}

/// Takes any certificate: what `prefer` and `require` of libpq do.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
