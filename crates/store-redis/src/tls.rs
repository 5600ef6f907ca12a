//! TLS as `redis-cli --tls` has it: the server's certificate must name the host.

use std::path::Path;
use std::sync::Arc;

use backup_core::{Error, ErrorKind, Result};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::server::{Server, Tls};

/// Speaks TLS over `stream`. A certificate that does not fit is `Denied`.
pub(crate) async fn wrap(
    server: &Server,
    tls: &Tls,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(server.host.clone())
        .map_err(|e| Error::new(ErrorKind::Invalid, format!("host of {server}")).with_source(e))?;
    let connector = TlsConnector::from(Arc::new(config(tls)?));
    connector.connect(name, stream).await.map_err(|error| {
        let refused = error.get_ref().is_some_and(|e| e.is::<rustls::Error>());
        let kind = if refused {
            ErrorKind::Denied
        } else {
            ErrorKind::Unavailable
        };
        Error::new(kind, format!("TLS with {server}: {error}"))
    })
}

fn config(tls: &Tls) -> Result<ClientConfig> {
    let failed = |e| Error::new(ErrorKind::Invalid, "set up TLS").with_source(e);
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots(tls.cacert.as_deref())?);
    let Some((cert, key)) = &tls.client else {
        return Ok(builder.with_no_client_auth());
    };
    let secret =
        PrivateKeyDer::from_pem_file(key).map_err(|e| unusable("key", key, &e.to_string()))?;
    builder
        .with_client_auth_cert(certificates("cert", cert)?, secret)
        .map_err(failed)
}

fn roots(file: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return match roots.is_empty() {
            true => Err(Error::new(
                ErrorKind::Invalid,
                "the system has no certificates: name a file of them in `cacert`",
            )),
            false => Ok(roots),
        };
    };
    for certificate in certificates("cacert", file)? {
        let added = roots.add(certificate);
        added.map_err(|e| unusable("cacert", file, &e.to_string()))?;
    }
    Ok(roots)
}

fn certificates(what: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read =
        CertificateDer::pem_file_iter(file).and_then(|found| found.collect::<Result<Vec<_>, _>>());
    match read {
        Ok(found) if found.is_empty() => Err(unusable(what, file, "it has no certificate")),
        Ok(found) => Ok(found),
        Err(e) => Err(unusable(what, file, &e.to_string())),
    }
}

fn unusable(what: &str, file: &Path, why: &str) -> Error {
    let message = format!("`{what}`: file {}: {why}", file.display());
    Error::new(ErrorKind::Invalid, message)
}
