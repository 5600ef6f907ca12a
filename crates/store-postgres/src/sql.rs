//! SQL over a connection of our own.

use std::ops::Deref;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, config};

use crate::server::{Server, SslMode};
use crate::tls;

/// How long a server may take to let somebody in.
pub(crate) const CONNECT: Duration = Duration::from_secs(30);

/// A connection is silent while programs dump: no router may take it for dead.
pub(crate) const KEEPALIVES_IDLE: Duration = Duration::from_secs(60);

/// A connection. Dropping it closes it, and the server ends what it was doing.
pub(crate) struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Connects. `NotFound`: no such database; `Denied`: wrong password or no right;
    /// `Unavailable`: nobody there, or nobody who answers.
    pub(crate) async fn open(server: &Server) -> Result<Self> {
        Self::open_within(server, CONNECT).await
    }

    async fn open_within(server: &Server, limit: Duration) -> Result<Self> {
        // `connect_timeout` of the library ends with the TCP handshake, of each address.
        let opened = tokio::time::timeout(limit, Self::connect(server, limit)).await;
        opened.unwrap_or_else(|_| {
            let message = format!("connect to {server}: no answer within {limit:?}");
            Err(Error::new(ErrorKind::Unavailable, message))
        })
    }

    async fn connect(server: &Server, limit: Duration) -> Result<Self> {
        let mut config = Config::new();
        config
            .host(&server.host)
            .port(server.port)
            .user(&server.user)
            .dbname(&server.database)
            .application_name("lifebelt")
            .connect_timeout(limit / 3)
            .keepalives_idle(KEEPALIVES_IDLE)
            .ssl_mode(match server.sslmode {
                SslMode::Disable => config::SslMode::Disable,
                SslMode::Prefer => config::SslMode::Prefer,
                SslMode::Require | SslMode::VerifyFull => config::SslMode::Require,
            });
        if let Some(password) = &server.password {
            config.password(password.expose());
        }
        let refused = |e| failed(&format!("connect to {server}"), e);
        if server.sslmode == SslMode::Disable {
            let (client, connection) = config.connect(NoTls).await.map_err(refused)?;
            return Ok(Self::over(client, async move { drop(connection.await) }));
        }
        let (client, connection) = config
            .connect(tls::connector(server)?)
            .await
            .map_err(refused)?;
        Ok(Self::over(client, async move { drop(connection.await) }))
    }

    /// Every error of a connection also ends the query that waits for it: nothing is lost here.
    fn over(client: Client, driver: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            client,
            driver: tokio::spawn(driver),
        }
    }

    /// A connection that is not to `server`'s database, for creating and renaming it.
    pub(crate) async fn beside(server: &Server) -> Result<Self> {
        let template = server.database("template1");
        if server.database == "postgres" {
            return Self::open(&template).await;
        }
        match Self::open(&server.database("postgres")).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Self::open(&template).await,
            opened => opened,
        }
    }

    /// Runs statements that answer nothing.
    pub(crate) async fn run(&self, what: &str, statements: &str) -> Result<()> {
        let ran = self.client.batch_execute(statements).await;
        ran.map_err(|e| failed(what, e))
    }
}

/// What the server said, with a kind to act on (PostgreSQL documentation, appendix A).
pub(crate) fn failed(what: &str, error: tokio_postgres::Error) -> Error {
    let Some(said) = error.as_db_error() else {
        let message = format!("{what}: {error}");
        return match std::error::Error::source(&error) {
            None => Error::new(ErrorKind::Unavailable, message),
            Some(cause) => Error::new(ErrorKind::Unavailable, format!("{message}: {cause}")),
        };
    };
    let code = said.code();
    let kind = if *code == SqlState::INVALID_CATALOG_NAME {
        ErrorKind::NotFound
    } else if *code == SqlState::INSUFFICIENT_PRIVILEGE || code.code().starts_with("28") {
        ErrorKind::Denied
    } else if ["08", "53", "57P"]
        .iter()
        .any(|class| code.code().starts_with(class))
    {
        ErrorKind::Unavailable
    } else {
        ErrorKind::Other
    };
    Error::new(
        kind,
        format!("{what}: {} (SQLSTATE {})", said.message(), code.code()),
    )
}

/// A name as SQL takes it.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL takes it, where `standard_conforming_strings` is on.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::server::Pieces;

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = silent.local_addr().unwrap();
        for mode in ["disable", "prefer", "require"] {
            let url = format!("postgres://u@{place}/d?sslmode={mode}");
            let server = Pieces::of_url(&url).unwrap().server().unwrap();
            let opened = Session::open_within(&server, Duration::from_millis(50)).await;
            let error = opened.err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            assert!(error.to_string().contains("no answer within"), "{error:?}");
        }
    }
}
