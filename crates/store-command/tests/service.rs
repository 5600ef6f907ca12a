//! Real programs that fail in every way that programs do.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use backup_core::{
    ErrorKind, Facts, Job, MemorySink, MemorySource, MemoryTarget, Occupancy, Pipeline,
    RestoreRequest, Result, RunOptions, Sink, Source, Target,
};
use bytes::Bytes;
use futures::StreamExt;
use store_command::{Command, CommandTarget, FileTarget};
use tokio::task::unconstrained;

fn sh(script: &str) -> Command {
    Command::new(["sh", "-c", script])
}

fn job(source: impl Source, sink: &MemorySink) -> Job {
    Job::builder("job")
        .source(source)
        .pipeline(Pipeline::unencrypted())
        .sink("memory", sink.clone())
        .build()
        .unwrap()
}

/// Backs up and brings back. After a failure nothing may be in the sink.
async fn round_trip(source: Command) -> Result<Bytes> {
    let sink = MemorySink::new();
    let job = job(source, &sink);
    let report = match job.run(RunOptions::default()).await {
        Ok(report) => report,
        Err(error) => {
            let left: Vec<_> = sink.list(None).collect().await;
            assert!(left.is_empty(), "a failed backup left {left:?}");
            return Err(error);
        }
    };
    let target = MemoryTarget::of_kind("command");
    job.restore(&report.id, &target, RestoreRequest::default())
        .await?;
    Ok(target.parts()["output"].clone())
}

/// The whole chain of the error that the backup ends with.
async fn failure(source: Command) -> String {
    let error = round_trip(source).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source, "{}", error.chain());
    error.chain()
}

/// Feeds `bytes` to a target through a backup and a restore.
async fn restore(bytes: &[u8], target: &dyn Target, request: RestoreRequest) -> Result<()> {
    restore_parts(vec![("output", bytes.to_vec())], target, request).await
}

async fn restore_parts(
    parts: Vec<(&'static str, Vec<u8>)>,
    target: &dyn Target,
    request: RestoreRequest,
) -> Result<()> {
    let source = OfKind(MemorySource::new(parts));
    let job = job(source, &MemorySink::new());
    let report = job.run(RunOptions::default()).await?;
    job.restore(&report.id, target, request).await.map(drop)
}

/// A memory source that passes for a command.
#[derive(Debug)]
struct OfKind(MemorySource);

#[backup_core::async_trait]
impl Source for OfKind {
    fn kind(&self) -> &str {
        "command"
    }

    async fn backup(
        &self,
        request: &backup_core::Request,
        out: &backup_core::PartWriter,
    ) -> Result<Facts> {
        self.0.backup(request, out).await
    }
}

fn alive(pid: i32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let zombie = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()));
        stat.is_ok_and(|stat| stat.contains(") Z "))
    };
    rustix::process::test_kill_process(pid).is_ok() && !zombie()
}

async fn gone(pid: i32) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while alive(pid) {
        assert!(Instant::now() < deadline, "process {pid} lives on");
        tokio::task::yield_now().await;
    }
}

async fn pid_in(file: &Path) -> i32 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Ok(text) = fs::read_to_string(file)
            && let Some(line) = text.strip_suffix('\n')
        {
            return line.parse().unwrap();
        }
        assert!(
            Instant::now() < deadline,
            "{} was never written",
            file.display()
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_output_comes_back_byte_for_byte() {
    let bytes = round_trip(sh("head -c 3000001 /dev/zero; printf end"))
        .await
        .unwrap();
    assert_eq!(bytes.len(), 3_000_004);
    assert!(bytes.ends_with(b"\0end"));
}

#[tokio::test]
async fn facts_name_the_program_and_never_its_arguments() {
    let sink = MemorySink::new();
    let job = job(sh("printf 12345"), &sink);
    let id = job.run(RunOptions::default()).await.unwrap().id;
    let facts = job.find(id.as_str()).await.unwrap().manifest.facts.clone();
    assert_eq!(facts, Facts::new().with("program", "sh").with("bytes", 5));
}

#[tokio::test]
async fn no_shell_reads_the_arguments() {
    let word = "$HOME `id` ; | \" ' * \n";
    let bytes = round_trip(Command::new(["printf", "%s", word]))
        .await
        .unwrap();
    assert_eq!(bytes, word);
}

#[tokio::test]
async fn a_program_that_fails_after_its_last_byte_fails_the_backup() {
    for size in [0, 1, 65_536, 1_000_000] {
        let text = failure(sh(&format!(
            "head -c {size} /dev/zero; echo sorry >&2; exit 7"
        )))
        .await;
        assert!(text.contains("`sh` exited with status 7: sorry"), "{text}");
    }
}

#[tokio::test]
async fn a_killed_program_fails_the_backup() {
    for size in [0, 70_000, 5_000_000] {
        let text = failure(sh(&format!("head -c {size} /dev/zero; kill -9 $$"))).await;
        assert!(text.contains("was killed by signal 9"), "{text}");
    }
}

/// Kills at a spread of moments: nothing but an error may come of it, unless it had ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_killed_at_any_moment_never_makes_a_short_backup() {
    let folder = tempfile::tempdir().unwrap();
    for moment in 0..30u64 {
        let file = folder.path().join(moment.to_string());
        let script = format!(
            "echo $$ > {}; exec head -c 40000000 /dev/zero",
            file.display()
        );
        let running = tokio::spawn(round_trip(sh(&script)));
        let pid = pid_in(&file).await;
        std::thread::sleep(Duration::from_micros(moment * 300));
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        match running.await.unwrap() {
            Ok(bytes) => assert_eq!(bytes.len(), 40_000_000),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Source, "{error:?}"),
        }
    }
}

#[tokio::test]
async fn an_empty_output_is_no_backup_unless_it_may_be() {
    let text = failure(Command::new(["true"])).await;
    assert!(
        text.contains("wrote 0 bytes where at least 1 were expected"),
        "{text}"
    );
    assert_eq!(
        round_trip(Command::new(["true"]).min_size(0))
            .await
            .unwrap(),
        ""
    );
}

#[tokio::test]
async fn sizes_magic_and_trailer_are_checked() {
    let good = || sh("printf PGDMP-data-done").magic("PGDMP").trailer("done");
    round_trip(good().min_size(15).max_size(15)).await.unwrap();
    for (source, expected) in [
        (
            good().min_size(16),
            "wrote 15 bytes where at least 16 were expected",
        ),
        (good().max_size(14), "wrote more than 14 bytes"),
        (
            good().magic("PGDMX"),
            "began with \"PGDMP\" instead of \"PGDMX\"",
        ),
        (
            good().trailer("ready"),
            "ended with \"-done\" instead of \"ready\"",
        ),
        (
            sh("printf PG").magic("PGDMP"),
            "began with \"PG\" instead of",
        ),
        (
            sh("printf ne").trailer("done"),
            "ended with \"ne\" instead of",
        ),
        (
            sh("cat /dev/zero").magic("x"),
            "began with \"\\x00\" instead of \"x\"",
        ),
        (
            sh("cat /dev/zero").max_size(1 << 20),
            "wrote more than 1048576 bytes",
        ),
    ] {
        let text = failure(source).await;
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn a_magic_and_a_trailer_may_come_in_pieces() {
    let source = sh("for c in P G D M P e n d; do printf $c; done")
        .magic("PGDMP")
        .trailer("Pend");
    assert_eq!(round_trip(source).await.unwrap(), "PGDMPend");
}

#[tokio::test]
async fn a_program_that_stalls_or_trickles_is_stopped() {
    let limit = Duration::from_millis(300);
    let text = failure(sh("printf x; sleep 1000").stall_timeout(limit)).await;
    assert!(text.contains("wrote nothing for 300ms"), "{text}");
    let text = failure(sh("printf x; exec >&-; sleep 1000").stall_timeout(limit)).await;
    assert!(
        text.contains("closed its output and did not exit"),
        "{text}"
    );
    let text = failure(sh("while :; do printf x; sleep 0.05; done").timeout(limit)).await;
    assert!(text.contains("ran longer than its `timeout`"), "{text}");
    let text = failure(sh("cat /dev/zero").timeout(limit)).await;
    assert!(text.contains("ran longer than its `timeout`"), "{text}");
}

#[tokio::test]
async fn an_output_that_a_grandchild_keeps_open_is_no_complete_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; printf x", file.display());
    let text = failure(sh(&script).stall_timeout(Duration::from_millis(500))).await;
    assert!(
        text.contains("something that it started keeps its output open"),
        "{text}"
    );
    gone(pid_in(&file).await).await;
}

#[tokio::test]
async fn what_a_grandchild_still_writes_is_part_of_the_output() {
    let bytes = round_trip(sh("(sleep 0.2; printf late) & printf early-"))
        .await
        .unwrap();
    assert_eq!(bytes, "early-late");
}

#[tokio::test]
async fn whatever_is_left_of_the_group_ends_with_the_backup() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!(
        "sleep 1000 >/dev/null 2>&1 & echo $! > {}; printf x",
        file.display()
    );
    round_trip(sh(&script)).await.unwrap();
    gone(pid_in(&file).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_kills_children_and_grandchildren() {
    let folder = tempfile::tempdir().unwrap();
    let (child, grandchild) = (
        folder.path().join("child"),
        folder.path().join("grandchild"),
    );
    let script = format!(
        "sh -c 'echo $$ > {}; cat /dev/zero' & echo $$ > {}; cat /dev/zero",
        grandchild.display(),
        child.display()
    );
    let sink = MemorySink::new();
    let mut handle = job(sh(&script).max_size(1 << 40), &sink).start(RunOptions::default());
    let pids = [pid_in(&child).await, pid_in(&grandchild).await];
    handle.cancel();
    assert!(handle.wait().await.is_err());
    for pid in pids {
        gone(pid).await;
    }
    assert_eq!(sink.list(None).count().await, 0);
}

#[tokio::test]
async fn a_flood_on_standard_error_stops_nobody() {
    let source = sh("head -c 20000000 /dev/zero >&2; echo last words >&2; printf x; exit 3");
    let text = failure(source).await;
    assert!(text.ends_with("last words"), "{text}");
    assert!(text.len() < 20_000, "{} bytes of it", text.len());
}

#[tokio::test]
async fn secrets_of_the_environment_reach_the_program_and_nobody_else() {
    let secret = "correct horse";
    let source = sh("printf %s \"$PASSWORD\"").env("PASSWORD", secret);
    assert!(!format!("{source:?}").contains(secret));
    assert_eq!(round_trip(source).await.unwrap(), secret);
    let text = failure(sh("echo $PASSWORD >&2; exit 1").env("PASSWORD", secret)).await;
    assert!(text.ends_with(": [PASSWORD]"), "{text}");
}

#[tokio::test]
async fn the_environment_and_the_folder_are_what_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().canonicalize().unwrap();
    let source = Command::new(["/bin/sh", "-c", "pwd; echo ${CARGO_MANIFEST_DIR-none} $A"])
        .directory(&path)
        .env_clear(true)
        .env("A", "a");
    let expected = format!("{}\nnone a\n", path.display());
    assert_eq!(round_trip(source).await.unwrap(), expected);
}

#[tokio::test]
async fn a_program_that_cannot_start_is_named() {
    let error = round_trip(Command::new(["/no/such/program"]))
        .await
        .unwrap_err();
    assert!(
        error.chain().contains("start `/no/such/program`"),
        "{}",
        error.chain()
    );
    let error = round_trip(Command::new(Vec::<String>::new()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn instructions_name_the_program_that_takes_it_or_a_file() {
    let steps = sh("x")
        .part("shop.sql")
        .restore(["mysql", "shop"])
        .restore_steps();
    assert_eq!(steps[0].part, "shop.sql");
    assert_eq!(steps[0].command.to_string(), "mysql shop");
    assert_eq!(
        sh("x").restore_steps()[0].command.to_string(),
        "dd bs=1M \"of=$TARGET\""
    );
}

fn confirmed(target: &dyn Target) -> RestoreRequest {
    RestoreRequest::default().overwrite(target.to_string())
}

#[tokio::test]
async fn a_program_is_fed_everything() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    for bytes in [&bytes[..], b"x", b""] {
        let target = CommandTarget::new(["dd", "bs=1M", &format!("of={}", out.display())]);
        restore(bytes, &target, confirmed(&target)).await.unwrap();
        assert_eq!(fs::read(&out).unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_program_that_does_not_read_everything_has_not_restored() {
    for size in [1, 100_000, 3_000_000] {
        for script in [
            "exit 0",
            "exec <&-; sleep 0.1",
            "head -c 1 >/dev/null && test 1 = 1",
        ] {
            if size == 1 && script.starts_with("head") {
                continue;
            }
            let target = CommandTarget::new(["sh", "-c", script]);
            let error = restore(&vec![1; size], &target, confirmed(&target))
                .await
                .unwrap_err();
            let text = error.chain();
            let told = text.contains("unread") || text.contains("before it had read everything");
            assert!(told, "{size} {script}: {text}");
        }
    }
}

#[tokio::test]
async fn a_program_that_fails_has_not_restored() {
    for size in [1, 3_000_000] {
        let target = CommandTarget::new(["sh", "-c", "cat >/dev/null; echo no room >&2; exit 2"]);
        let error = restore(&vec![1; size], &target, confirmed(&target))
            .await
            .unwrap_err();
        assert!(
            error.chain().contains("`sh` exited with status 2: no room"),
            "{error:?}"
        );
        let target = CommandTarget::new(["sh", "-c", "head -c 1 >/dev/null; exit 3"]);
        let error = restore(&vec![1; size], &target, confirmed(&target))
            .await
            .unwrap_err();
        assert!(
            error.chain().contains("`sh` exited with status 3"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_restore_that_takes_too_long_is_stopped() {
    let target = CommandTarget::new(["sleep", "1000"]).timeout(Duration::from_secs(1));
    let error = restore(b"x", &target, confirmed(&target))
        .await
        .unwrap_err();
    assert!(
        error.chain().contains("`sleep` ran longer than 1s"),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_a_program_replaces_must_be_confirmed_unless_a_check_says_that_nothing_is_there() {
    let target = CommandTarget::new(["cat"]);
    let error = restore(b"x", &target, RestoreRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);

    let check = |script: &str| target.clone().empty_check(["sh", "-c", script]);
    restore(b"x", &check("exit 0"), RestoreRequest::default())
        .await
        .unwrap();
    let holds = check("echo '37 tables\x1b'; exit 1")
        .occupancy()
        .await
        .unwrap();
    assert_eq!(holds, Occupancy::Holds("37 tables".into()));
    let holds = check("exit 1").occupancy().await.unwrap();
    assert_eq!(holds, Occupancy::Holds("something, says `sh`".into()));
    let error = check("echo no route >&2; exit 2")
        .occupancy()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("status 2: no route"), "{error}");
}

#[tokio::test]
async fn one_of_several_parts_must_be_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let parts = || vec![("a", b"1".to_vec()), ("b", b"2".to_vec())];
    let target = FileTarget::new(&path);
    let error = restore_parts(parts(), &target, RestoreRequest::default())
        .await
        .unwrap_err();
    assert!(error.chain().contains("the backup has a, b"), "{error:?}");
    let target = FileTarget::new(&path).part("b");
    restore_parts(parts(), &target, RestoreRequest::default())
        .await
        .unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"2");
}

#[tokio::test]
async fn a_file_is_replaced_as_a_whole_and_only_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump");
    let target = FileTarget::new(&path);
    assert_eq!(target.occupancy().await.unwrap(), Occupancy::Empty);
    restore(b"first", &target, RestoreRequest::default())
        .await
        .unwrap();
    let holds = Occupancy::Holds("a file of 5 bytes".into());
    assert_eq!(target.occupancy().await.unwrap(), holds);
    let error = restore(b"second", &target, RestoreRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(fs::read(&path).unwrap(), b"first");
    restore(b"second", &target, confirmed(&target))
        .await
        .unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"second");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing else stays behind"
    );
}

#[tokio::test]
async fn a_folder_is_no_file_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let target = FileTarget::new(folder.path());
    assert_eq!(
        target.occupancy().await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[tokio::test]
async fn an_option_that_is_unknown_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = backup_core::RestoreOptions::default();
    options.extra.insert("with_owners".into(), true.into());
    let target = FileTarget::new(folder.path().join("x"));
    let request = RestoreRequest::default().options(options);
    let error = restore(b"x", &target, request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_restore_never_shows_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump");
    let target = FileTarget::new(&path);
    let job = job(
        OfKind(MemorySource::new([("output", vec![1; 300_000])])),
        &MemorySink::new(),
    );
    let id = job.run(RunOptions::default()).await.unwrap().id;
    let mut polls = 0;
    let mut done = false;
    while !done {
        let mut restoring = Box::pin(unconstrained(job.restore(
            &id,
            &target,
            RestoreRequest::default(),
        )));
        for _ in 0..polls {
            done = futures::poll!(&mut restoring).is_ready();
            if done {
                break;
            }
            // Polls come faster than a disk: let it get a little further each time.
            std::thread::sleep(Duration::from_micros(200));
        }
        drop(restoring);
        assert_eq!(path.exists(), done, "after {polls} polls");
        let _ = fs::remove_file(&path);
        polls += 1 + polls / 20;
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while fs::read_dir(folder.path()).unwrap().count() > 0 {
        assert!(Instant::now() < deadline, "hidden files stay behind");
        tokio::task::yield_now().await;
    }
}
