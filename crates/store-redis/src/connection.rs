//! A connection to a server, and its protocol (RESP, version 2: redis.io/docs/reference/protocol-spec).

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::server::Server;
use crate::tls;

/// Both halves of a connection.
pub(crate) trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// A connection. Dropping it closes it, and the server ends what it was doing for it.
pub(crate) struct Connection {
    stream: Box<dyn Pipe>,
    /// What was read and not yet taken.
    pub(crate) buffer: BytesMut,
    pub(crate) name: String,
    /// Our end's address and theirs.
    pub(crate) ends: (SocketAddr, SocketAddr),
    pub(crate) patience: Duration,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reply {
    /// `+OK`, and `$` with bytes.
    Text(Bytes),
    Error(String),
    Integer(i64),
    Array(Vec<Reply>),
    Nil,
}

/// Bounds for what the other side may cost.
#[derive(Clone, Copy)]
struct Limits {
    text: usize,
    elements: usize,
    depth: usize,
}

/// For the answers of a server that we went to.
const ANSWER: Limits = Limits {
    text: 16 << 20,
    elements: 1 << 16,
    depth: 8,
};

/// For what somebody says who came to us.
const COMMAND: Limits = Limits {
    text: 1 << 10,
    elements: 16,
    depth: 1,
};

/// The longest line that is no text.
const LINE: usize = 64 << 10;

impl Connection {
    /// Connects and logs in. `Denied`: wrong password; `Unavailable`: nobody there. `patience` is
    /// how long the other side may be silent, then and later.
    pub(crate) async fn open(server: &Server, patience: Duration) -> Result<Self> {
        let name = server.to_string();
        let dialled = async {
            let stream = TcpStream::connect(server.address()).await.map_err(|e| {
                Error::new(ErrorKind::Unavailable, format!("connect to {name}: {e}"))
            })?;
            let failed = |e| Error::io(format!("connect to {name}"), e);
            stream.set_nodelay(true).map_err(failed)?;
            let ends = (
                stream.local_addr().map_err(failed)?,
                stream.peer_addr().map_err(failed)?,
            );
            let stream: Box<dyn Pipe> = match &server.tls {
                Some(tls) => Box::new(tls::wrap(server, tls, stream).await?),
                None => Box::new(stream),
            };
            Ok((stream, ends))
        };
        let (stream, ends) = timeout(patience, dialled)
            .await
            .unwrap_or_else(|_| Err(silent(&name, patience)))?;
        let mut connection = Self::over(stream, ends, name, patience);
        connection.log_in(server).await?;
        Ok(connection)
    }

    /// A connection that is there.
    pub(crate) fn over(
        stream: Box<dyn Pipe>,
        ends: (SocketAddr, SocketAddr),
        name: String,
        patience: Duration,
    ) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            name,
            ends,
            patience,
        }
    }

    async fn log_in(&mut self, server: &Server) -> Result<()> {
        let answer = match (&server.user, &server.password) {
            (_, None) => self.ask(&["PING"]).await,
            (None, Some(password)) => self.ask(&["AUTH", password.expose()]).await,
            (Some(user), Some(password)) => self.ask(&["AUTH", user, password.expose()]).await,
        };
        match answer {
            // Who may do nothing else may still take a snapshot; and one that is busy is there.
            Err(error)
                if ["NOPERM", "MASTERDOWN", "LOADING", "BUSY"]
                    .iter()
                    .any(|code| error.to_string().contains(code)) =>
            {
                Ok(())
            }
            Err(error) => Err(error.context(format!("log in to {}", self.name))),
            Ok(_) => Ok(()),
        }
    }

    /// Sends a command and waits for its answer. An error of the server is one here, with a kind
    /// to act on.
    pub(crate) async fn ask(&mut self, command: &[&str]) -> Result<Reply> {
        self.send(&request(command)).await?;
        match self.reply_within(ANSWER).await? {
            Reply::Error(said) => Err(refused(command, &said)),
            reply => Ok(reply),
        }
    }

    /// The answer to a command as text.
    pub(crate) async fn ask_text(&mut self, command: &[&str]) -> Result<String> {
        match self.ask(command).await? {
            Reply::Text(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
            _ => Err(self.strange("something that is no text")),
        }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match timeout(self.patience, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.broken(&error.to_string())),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("{} took nothing for {:?}", self.name, self.patience),
            )),
        }
    }

    /// Reads more into the buffer; `false` is the end of the connection. Cancel-safe.
    pub(crate) async fn fill(&mut self) -> Result<bool> {
        if self.buffer.capacity() - self.buffer.len() < backup_core::CHUNK / 2 {
            self.buffer.reserve(backup_core::CHUNK);
        }
        match timeout(self.patience, self.stream.read_buf(&mut self.buffer)).await {
            Ok(Ok(n)) => Ok(n > 0),
            Ok(Err(error)) => Err(self.broken(&error.to_string())),
            Err(_) => Err(silent(&self.name, self.patience)),
        }
    }

    /// A line without its end.
    pub(crate) async fn line(&mut self) -> Result<Bytes> {
        let mut seen = 0;
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.buffer[seen..]) {
                let mut line = self.buffer.split_to(seen + at + 1).freeze();
                line.truncate(line.len() - 1);
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                return Ok(line);
            }
            seen = self.buffer.len();
            if seen > LINE {
                return Err(self.strange("a line without an end"));
            }
            if !self.fill().await? {
                return Err(self.broken("it closed the connection"));
            }
        }
    }

    /// A command of somebody who takes us for a server: an array of texts, or one line of words.
    pub(crate) async fn command(&mut self) -> Result<Vec<String>> {
        let line = self.line().await?;
        if line.first() != Some(&b'*') {
            let words = String::from_utf8_lossy(&line).into_owned();
            return Ok(words.split_whitespace().map(str::to_owned).collect());
        }
        let command = self.reply_of(line, COMMAND).await?;
        let words = command
            .array()
            .iter()
            .map(|word| word.text().unwrap_or_default().to_owned());
        Ok(words.collect())
    }

    async fn reply_within(&mut self, limits: Limits) -> Result<Reply> {
        let line = self.line().await?;
        self.reply_of(line, limits).await
    }

    async fn reply_of(&mut self, line: Bytes, limits: Limits) -> Result<Reply> {
        let (kind, rest) = line.split_at(line.len().min(1));
        let text = || String::from_utf8_lossy(rest).into_owned();
        let number = std::str::from_utf8(rest)
            .ok()
            .and_then(|n| n.parse::<i64>().ok());
        match (kind, number) {
            (b"+", _) => Ok(Reply::Text(line.slice(1..))),
            (b"-", _) => Ok(Reply::Error(text())),
            (b":", Some(number)) => Ok(Reply::Integer(number)),
            (b"$" | b"*", Some(-1)) => Ok(Reply::Nil),
            (b"$", Some(length)) => {
                let length = usize::try_from(length)
                    .ok()
                    .filter(|length| *length <= limits.text);
                let length = length.ok_or_else(|| self.strange("too long a text"))?;
                while self.buffer.len() < length + 2 {
                    if !self.fill().await? {
                        return Err(self.broken("it closed the connection"));
                    }
                }
                let text = self.buffer.split_to(length).freeze();
                self.buffer.advance(2);
                Ok(Reply::Text(text))
            }
            (b"*", Some(count)) => {
                let count = usize::try_from(count).ok();
                let count = count.filter(|count| *count <= limits.elements && limits.depth > 0);
                let count = count.ok_or_else(|| self.strange("too large an answer"))?;
                let depth = limits.depth - 1;
                let within = Limits { depth, ..limits };
                let mut elements = Vec::new();
                for _ in 0..count {
                    elements.push(Box::pin(self.reply_within(within)).await?);
                }
                Ok(Reply::Array(elements))
            }
            _ => Err(self.strange("what is no answer of Redis")),
        }
    }

    pub(crate) fn broken(&self, why: &str) -> Error {
        Error::new(ErrorKind::Unavailable, format!("{}: {why}", self.name))
    }

    fn strange(&self, what: &str) -> Error {
        Error::new(ErrorKind::Source, format!("{} sent {what}", self.name))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.name)
    }
}

pub(crate) fn silent(name: &str, patience: Duration) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("{name} said nothing for {patience:?}"),
    )
}

/// A command as it is sent: an array of texts.
pub(crate) fn request(command: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for word in command {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// What a server said, with a kind to act on. The first word of an error is its code.
pub(crate) fn refused(command: &[&str], said: &str) -> Error {
    // Some repeat the arguments of a command that they do not know, a password among them.
    let said = said.split(", with args beginning").next().unwrap_or(said);
    let kind = match said.split(' ').next().unwrap_or_default() {
        "NOAUTH" | "WRONGPASS" | "NOPERM" => ErrorKind::Denied,
        "LOADING" | "BUSY" | "MASTERDOWN" | "NOMASTERLINK" | "TRYAGAIN" | "CLUSTERDOWN" => {
            ErrorKind::Unavailable
        }
        _ if said.contains("without any password configured") => ErrorKind::Denied,
        _ if said.contains("unknown command") || said.contains("not allowed") => {
            ErrorKind::Unsupported
        }
        _ => ErrorKind::Other,
    };
    let name = command.first().unwrap_or(&"");
    Error::new(kind, format!("{name}: {said}"))
}

impl Reply {
    pub(crate) fn array(&self) -> &[Reply] {
        match self {
            Self::Array(elements) => elements,
            _ => &[],
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            _ => None,
        }
    }
}
