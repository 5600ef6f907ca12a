//! Who is master now.

use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};

use crate::connection::Connection;
use crate::server::{Server, invalid, split_port};

/// Servers that know the master of a name.
#[derive(Clone, Debug)]
pub(crate) struct Sentinel {
    master: String,
    nodes: Vec<Server>,
    /// Login and certificates for the master; what it has for an address means nothing.
    pub(crate) login: Server,
}

impl Sentinel {
    pub(crate) fn new(
        master: String,
        nodes: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self> {
        let node = |node: &str| match node.contains("://") {
            true => Server::of_url(node),
            false => {
                let (host, port) = split_port(node, 26379)?;
                Ok(Server::of_url("redis://sentinel")?.at(&host, port))
            }
        };
        let nodes: Vec<Server> = nodes
            .into_iter()
            .map(|text| node(text.as_ref()))
            .collect::<Result<_>>()?;
        let first = nodes.first().filter(|_| !master.is_empty());
        let first = first.ok_or_else(|| invalid("`sentinel` needs a `master` and its `nodes`"))?;
        let mut login = first.clone();
        // Sentinels have a login of their own.
        (login.user, login.password) = (None, None);
        Ok(Self {
            master,
            nodes,
            login,
        })
    }

    /// Asks one node after the other (`SENTINEL GET-MASTER-ADDR-BY-NAME`), and the server itself
    /// whether it is one: a sentinel may be late (redis.io/docs/reference/sentinel-clients).
    pub(crate) async fn master(&self, patience: Duration) -> Result<Server> {
        let mut last = None;
        for node in &self.nodes {
            match self.ask(node, patience).await {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        let what = format!("no sentinel names a master `{}` that is one", self.master);
        let error = Error::new(ErrorKind::Unavailable, what);
        Err(match last {
            Some(cause) => error.with_source(cause),
            None => error,
        })
    }

    async fn ask(&self, node: &Server, patience: Duration) -> Result<Server> {
        let mut node = node.clone();
        if let (Some(tls), Some(known)) = (&mut node.tls, &self.login.tls) {
            *tls = known.clone();
        }
        let mut connection = Connection::open(&node, patience).await?;
        let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &self.master];
        let answer = connection.ask(&question).await?;
        let [host, port] = answer.array() else {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("{node} knows no master `{}`", self.master),
            ));
        };
        let port = port.text().and_then(|port| port.parse().ok());
        let (Some(host), Some(port)) = (host.text(), port) else {
            return Err(connection.broken("its answer is no address"));
        };
        let server = self.login.at(host, port);
        let mut connection = Connection::open(&server, patience).await?;
        let role = connection.ask(&["ROLE"]).await?;
        match role.array().first().and_then(|role| role.text()) {
            Some("master") => Ok(server),
            _ => Err(connection.broken("it is named as master, and is none")),
        }
    }
}
