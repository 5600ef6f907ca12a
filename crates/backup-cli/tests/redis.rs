//! A Redis server by the words of the configuration, into another server and into a file.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use backup_core::testing::service;
use common::{Place, wait_until};

/// A server that `scripts/services` runs: where it is, and its password.
struct Server {
    place: String,
    password: String,
}

impl Server {
    fn at_hand(variable: &str) -> Option<Self> {
        let url = service(variable)?;
        let (login, place) = url.strip_prefix("redis://:")?.split_once('@')?;
        Some(Self {
            place: place.to_owned(),
            password: login.to_owned(),
        })
    }

    /// Commands of one line, each with its answer.
    fn ask(&self, commands: &str) -> String {
        let mut stream = TcpStream::connect(&self.place).unwrap();
        let all = format!("AUTH {}\r\n{commands}\r\nQUIT\r\n", self.password);
        stream.write_all(all.as_bytes()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    }
}

#[test]
fn a_server_is_backed_up_and_comes_back_into_another_and_into_a_file() {
    let (Some(from), Some(to)) = (
        Server::at_hand("LIFEBELT_REDIS_URL"),
        Server::at_hand("LIFEBELT_VALKEY_URL"),
    ) else {
        return;
    };
    from.ask("FLUSHALL\r\nSET greeting hello\r\nSELECT 3\r\nRPUSH list a b c");
    to.ask("FLUSHALL");
    let place = Place::empty();
    place.write("redis.password", &from.password);
    let job = format!(
        "[sinks.local]\ntype = \"fs\"\npath = \"local\"\n[jobs.cache]\nsinks = [\"local\"]\n\
         source = {{ type = \"redis\", url = \"redis://{}\", password_file = \"redis.password\" }}\n",
        from.place
    );
    place.write("lifebelt.toml", &format!("{}{job}", place.keys()));
    place.run(&["run", "cache"]).ends(0);
    let shown = place.run(&["show", "cache", "--json"]).ends(0).json();
    assert_eq!(shown["manifest"]["kind"], "redis");
    assert_eq!(shown["manifest"]["facts"]["keys"]["3"], 1);

    let url = format!("redis://{}", to.place);
    let restore = |to: &str, password: &str, more: &[&str]| {
        let arguments = [&["restore", "cache", "--to", to], more].concat();
        let mut command = place.command(&arguments);
        let said = command.env("REDISCLI_AUTH", password).output().unwrap();
        let said = common::Said::from(said);
        assert!(!format!("{said:?}").contains(&from.password), "{said:?}");
        assert!(
            !format!("{said:?}").contains(&to_password(&said, password)),
            "{said:?}"
        );
        said
    };
    let denied = restore(&url, "wrong-canary", &[]).ends(2);
    assert!(denied.err.contains("WRONGPASS"), "{denied:?}");
    restore(&url, &to.password, &[]).ends(0);
    let said = to.ask("GET greeting\r\nSELECT 3\r\nLRANGE list 0 -1");
    assert!(
        said.contains("hello") && said.contains("$1\r\nc\r\n"),
        "{said}"
    );
    // It holds something now; its name is its URL.
    let refused = restore(&url, &to.password, &[]).ends(6);
    assert!(
        refused.err.contains(&format!("--overwrite {url}")),
        "{refused:?}"
    );
    restore(&url, &to.password, &["--overwrite", &url]).ends(0);
    // Where a job reads its data is production.
    let own = format!("redis://{}", from.place);
    restore(&own, &from.password, &["--overwrite", &own]).ends(6);

    restore("out.rdb", "", &[]).ends(0);
    let bytes = std::fs::read(place.path("out.rdb")).unwrap();
    assert!(bytes.starts_with(b"REDIS0010"));

    stopped_restores_leave_a_master(&place, &from, &to);
    from.ask("FLUSHALL");
    to.ask("FLUSHALL");
}

/// A restore makes a server a replica for as long as it takes, and not for longer.
fn stopped_restores_leave_a_master(place: &Place, from: &Server, to: &Server) {
    // Numbers that no codec makes small: the way back takes a while.
    let numbers = "for k = 1, 20 do local t = {} \
                   for i = 1, 100000 do t[i] = string.format('%09d', math.random(999999999)) end \
                   redis.call('SET', KEYS[1] .. k, table.concat(t)) end";
    let filled = from.ask(&format!("EVAL \"{numbers}\" 1 big"));
    assert!(!filled.contains("-ERR"), "{filled}");
    place.run(&["run", "cache"]).ends(0);
    to.ask("FLUSHALL");
    let is = |role: &str| to.ask("INFO replication").contains(role);
    let mut command = place.command(&["restore", "cache", "--to"]);
    let mut restore = command
        .arg(format!("redis://{}", to.place))
        .env("REDISCLI_AUTH", &to.password)
        .spawn()
        .unwrap();
    wait_until("the server is a replica", || is("role:slave"));
    let id = restore.id().to_string();
    let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(sent.success());
    assert_eq!(restore.wait().unwrap().code(), Some(2));
    wait_until("the server is a master again", || is("role:master"));
}

/// What must not show: an empty password cannot.
fn to_password(said: &common::Said, password: &str) -> String {
    match password {
        "" => format!("{said:?}?"),
        password => password.to_owned(),
    }
}
