//! A connection to one member.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use futures::{StreamExt, stream};
use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::codec::Streaming;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::rpc::{
    AuthenticateRequest, AuthenticateResponse, SnapshotRequest, SnapshotResponse, WatchCreate,
    WatchRequest, WatchResponse,
};
use crate::server::Server;

/// A member that answers, for a user that it knows.
#[derive(Debug)]
pub(crate) struct Client {
    server: Server,
    channel: Channel,
    /// Of the last login: it ends some time (`--auth-token-ttl`).
    token: Mutex<Option<MetadataValue<Ascii>>>,
    /// How long it may be silent.
    patience: Duration,
}

impl Client {
    pub(crate) async fn open(server: &Server, patience: Duration) -> Result<Self> {
        let failed = |e: tonic::transport::Error| {
            let kind = match is_certificate(&e) {
                true => ErrorKind::Denied,
                false => ErrorKind::Unavailable,
            };
            Error::new(kind, format!("connect to {server}")).with_source(e)
        };
        let mut endpoint = Endpoint::from(server.endpoint.0.clone()).connect_timeout(patience);
        if server.endpoint.is_tls() {
            endpoint = endpoint.tls_config(tls(server)?).map_err(failed)?;
        }
        let channel = timeout(patience, endpoint.connect()).await;
        let channel = channel.map_err(|_| silent(server, patience))?;
        let client = Self {
            server: server.clone(),
            channel: channel.map_err(failed)?,
            token: Mutex::default(),
            patience,
        };
        client.log_in().await?;
        Ok(client)
    }

    /// Where there is somebody to log in.
    async fn log_in(&self) -> Result<()> {
        let (Some(user), Some(password)) = (&self.server.user, &self.server.password) else {
            return Ok(());
        };
        let login = AuthenticateRequest {
            name: user.clone(),
            password: password.expose().to_owned(),
        };
        let asked = self.ask_once("/etcdserverpb.Auth/Authenticate", login);
        let answer: AuthenticateResponse = asked
            .await
            .map_err(|e| e.context(format!("log in as {user}")))?;
        let mut token: MetadataValue<Ascii> = answer.token.parse().map_err(|_| {
            let message = format!("{} gives an unusable token", self.server);
            Error::new(ErrorKind::Source, message)
        })?;
        token.set_sensitive(true);
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        Ok(())
    }

    /// One question, one answer. A login that ended is renewed: what it was refused for was not done.
    pub(crate) async fn ask<Q, A>(&self, method: &'static str, question: Q) -> Result<A>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        // Of some size, and needed again only by who has logged in.
        let again = self.token().map(|_| question.clone());
        match (self.ask_once(method, question).await, again) {
            (Err(error), Some(again)) if error.to_string().contains("invalid auth token") => {
                self.log_in().await?;
                self.ask_once(method, again).await
            }
            (answer, _) => answer,
        }
    }

    async fn ask_once<Q, A>(&self, method: &'static str, question: Q) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.ready().await?;
        let path = PathAndQuery::from_static(method);
        let answer = grpc.unary(self.request(question), path, ProstCodec::default());
        Ok(self.heard(method, answer).await?.into_inner())
    }

    pub(crate) async fn snapshot(&self) -> Result<Streaming<SnapshotResponse>> {
        let mut grpc = self.ready().await?;
        let path = PathAndQuery::from_static(SNAPSHOT);
        let question = self.request(SnapshotRequest {});
        let answer = grpc.server_streaming(question, path, ProstCodec::default());
        Ok(self.heard(SNAPSHOT, answer).await?.into_inner())
    }

    /// What happens to all keys, from this revision on.
    pub(crate) async fn watch(&self, from: i64) -> Result<Streaming<WatchResponse>> {
        // One answer is as large as a transaction of the server may be.
        let mut grpc = self.ready().await?.max_decoding_message_size(usize::MAX);
        let create = WatchCreate {
            key: vec![0],
            range_end: vec![0],
            start_revision: from,
            fragment: true,
        };
        let question = WatchRequest {
            create: Some(create),
        };
        // Whoever ends his side ends the watch.
        let questions = stream::iter([question]).chain(stream::pending());
        let path = PathAndQuery::from_static(WATCH);
        let answer = grpc.streaming(self.request(questions), path, ProstCodec::default());
        Ok(self.heard(WATCH, answer).await?.into_inner())
    }

    /// The next message of what the server answers to `method`.
    pub(crate) async fn next<A>(
        &self,
        method: &'static str,
        stream: &mut Streaming<A>,
    ) -> Result<Option<A>> {
        self.heard(method, stream.message()).await
    }

    async fn heard<A>(
        &self,
        method: &'static str,
        answer: impl Future<Output = Result<A, Status>>,
    ) -> Result<A> {
        match timeout(self.patience, answer).await {
            Ok(answer) => answer.map_err(|status| self.refused(method, &status)),
            Err(_) => Err(silent(&self.server, self.patience)),
        }
    }

    async fn ready(&self) -> Result<Grpc<Channel>> {
        let mut grpc = Grpc::new(self.channel.clone());
        match timeout(self.patience, grpc.ready()).await {
            Ok(Ok(())) => Ok(grpc),
            Ok(Err(e)) => {
                let message = format!("connect to {}", self.server);
                Err(Error::new(ErrorKind::Unavailable, message).with_source(e))
            }
            Err(_) => Err(silent(&self.server, self.patience)),
        }
    }

    fn request<Q>(&self, question: Q) -> Request<Q> {
        let mut request = Request::new(question);
        if let Some(token) = self.token() {
            request.metadata_mut().insert("token", token);
        }
        request
    }

    fn token(&self) -> Option<MetadataValue<Ascii>> {
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        token.clone()
    }

    /// What the server said no with, as an error.
    fn refused(&self, method: &str, status: &Status) -> Error {
        let cause = cause(status);
        let said = cause.as_deref().unwrap_or(status.message());
        // `etcd/api/v3rpc/rpctypes/error.go`: a wrong password is an invalid argument there.
        let is_login =
            said.contains("authentication failed") || said.contains("user name is empty");
        let is_full = said.contains("database space exceeded");
        let kind = match status.code() {
            _ if is_login => ErrorKind::Denied,
            Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
            // 3.4 gives a snapshot's refusal no code.
            Code::Unknown if said.contains("permission denied") => ErrorKind::Denied,
            _ if is_certificate(status) => ErrorKind::Denied,
            // Not an answer: the connection broke.
            Code::Unknown if cause.is_some() => ErrorKind::Unavailable,
            _ if is_full => ErrorKind::Other,
            // `Cancelled`: the connection closed before the answer came.
            Code::Unavailable
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted => ErrorKind::Unavailable,
            Code::Unimplemented => ErrorKind::Unsupported,
            _ => ErrorKind::Source,
        };
        let method = method.rsplit('/').next().unwrap_or(method);
        let hint = match (kind, method) {
            (ErrorKind::Denied, "Snapshot" | "HashKV") => {
                "; a snapshot needs the role `root`, as of `user` and `password`, or of the name in `cert`"
            }
            (ErrorKind::Denied, _)
                if self.token().is_none() && said.contains("user name is empty") =>
            {
                "; it wants a `user` and a `password`"
            }
            // A server that wants one may end the connection before its reason is read.
            (ErrorKind::Unavailable, _)
                if cause.is_some()
                    && self.server.endpoint.is_tls()
                    && self.server.tls.cert.is_none() =>
            {
                "; does it want a client certificate (`cert`, `key`)?"
            }
            _ if is_full => {
                "; free some (`etcdctl compact`, `defrag`) or raise --quota-backend-bytes, then `etcdctl alarm disarm`"
            }
            _ => "",
        };
        Error::new(kind, format!("{method} of {}: {said}{hint}", self.server))
    }
}

pub(crate) const SNAPSHOT: &str = "/etcdserverpb.Maintenance/Snapshot";
pub(crate) const WATCH: &str = "/etcdserverpb.Watch/Watch";

fn silent(server: &Server, patience: Duration) -> Error {
    let seconds = patience.as_secs_f64();
    Error::new(
        ErrorKind::Unavailable,
        format!("{server} said nothing for {seconds} s"),
    )
}

fn tls(server: &Server) -> Result<ClientTlsConfig> {
    let mut config = ClientTlsConfig::new();
    config = match &server.tls.cacert {
        Some(file) => config.ca_certificate(Certificate::from_pem(read("cacert", file)?)),
        None => config.with_native_roots(),
    };
    if let (Some(cert), Some(key)) = (&server.tls.cert, &server.tls.key) {
        config = config.identity(Identity::from_pem(read("cert", cert)?, read("key", key)?));
    }
    Ok(config)
}

fn read(what: &str, file: &Path) -> Result<Vec<u8>> {
    fs::read(file).map_err(|e| {
        let message = format!("`{what}` {} cannot be read", file.display());
        Error::new(ErrorKind::Invalid, message).with_source(e)
    })
}

/// Why the connection broke, where a status is not what the server said.
fn cause(status: &Status) -> Option<String> {
    let mut cause = std::error::Error::source(status)?;
    while let Some(next) = cause.source() {
        cause = next;
    }
    Some(cause.to_string())
}

/// Whether it is the certificate that was refused, by us or by the server.
fn is_certificate(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        if error.is::<rustls::Error>() {
            return true;
        }
        // An I/O error shows what it wraps only when asked.
        let wrapped = error.downcast_ref::<std::io::Error>();
        if wrapped
            .and_then(std::io::Error::get_ref)
            .is_some_and(|e| e.is::<rustls::Error>())
        {
            return true;
        }
        at = error.source();
    }
    false
}
