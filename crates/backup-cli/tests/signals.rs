//! Asked to stop: nothing is visible, no child survives.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

mod common;

use std::process::{Child, Command, Stdio};

use common::{Place, Said, wait_until};

/// A run whose source has written something and waits for more that never comes.
fn stuck(place: &Place) -> (Child, String) {
    place.pipe();
    place.edit(
        "[\"cat\", \"data\"]",
        "[\"sh\", \"-c\", \"cat data; echo $$ > pid.new; mv pid.new pid; exec cat pipe\"]",
    );
    let child = place
        .command(&["run", "orders"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the source's process", || place.path("pid").exists());
    (child, place.read("pid").trim().to_owned())
}

fn send(signal: &str, pid: u32) {
    let status = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

fn is_alive(pid: &str) -> bool {
    std::path::Path::new("/proc").join(pid).join("exe").exists()
}

#[test]
fn a_signal_ends_a_run_and_its_child_and_leaves_nothing_visible() {
    for signal in ["-TERM", "-INT"] {
        let place = Place::new();
        let (child, source) = stuck(&place);
        send(signal, child.id());
        let said = Said::from(child.wait_with_output().unwrap()).ends(2);
        assert!(
            said.err
                .starts_with("lifebelt: warning: stopping; once more to stop at once\n"),
            "{said:?}"
        );
        assert_eq!(said.err.lines().count(), 2, "{said:?}");
        assert!(!is_alive(&source), "the source's process is gone");
        assert!(place.ids().is_empty());
        assert!(place.files("local/orders").is_empty(), "nothing was left");

        place.edit("exec cat pipe", "true");
        place.run(&["run", "orders"]).ends(0);
    }
}

#[test]
fn a_run_that_is_killed_leaves_nothing_visible_and_its_child_ends() {
    let place = Place::new();
    let (mut child, source) = stuck(&place);
    send("-KILL", child.id());
    child.wait().unwrap();
    // Its pipe is closed: the next write ends it.
    std::fs::write(place.path("pipe"), "more\n").unwrap();
    wait_until("the end of the source's process", || !is_alive(&source));
    assert!(place.ids().is_empty());
    place.edit("exec cat pipe", "true");
    place.run(&["run", "orders"]).ends(0);
    place
        .run(&["prune", "orders", "--apply", "--sweep-older-than", "0s"])
        .ends(0);
    assert_eq!(place.ids().len(), 1);
}
