//! `keygen`: the keys of an installation, and a sheet to print.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use backup_core::transform::{AgeKeyPair, age_keygen};
use backup_core::{Clock, Error, ErrorKind, Result, Secret, SigningKey, Stamp, SystemClock};
use serde_json::json;

use crate::args::Keygen;
use crate::exit::Answer;

const IDENTITY: &str = "identity.txt";
const RECIPIENT: &str = "recipient.txt";
const SIGNING_KEY: &str = "minisign.key";
const PUBLIC_KEY: &str = "minisign.pub";
const SHEET: &str = "recovery-sheet.md";

/// Makes both key pairs. Refuses to touch a folder that holds one of the five files.
pub(crate) fn keygen(arguments: &Keygen) -> Result<Answer> {
    let dir = &arguments.dir;
    for name in [IDENTITY, RECIPIENT, SIGNING_KEY, PUBLIC_KEY, SHEET] {
        let path = dir.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(Error::new(
                ErrorKind::Refused,
                format!(
                    "{} exists; keys are never overwritten: name another folder",
                    path.display()
                ),
            ));
        }
    }
    let passphrase = arguments.passphrase.then(ask).transpose()?;
    let now = SystemClock.now();
    let age = age_keygen(now);
    let signing = SigningKey::generate()?;
    let public = signing.public();

    make_dir(dir)?;
    let sheet = sheet(
        &age,
        &public.to_string(),
        Stamp::from(now),
        passphrase.is_some(),
    );
    let signing = signing.to_text(passphrase.as_ref().map(Secret::expose))?;
    let recipient = format!("{}\n", age.recipient);
    for (name, text) in [
        (IDENTITY, age.identity.expose()),
        (RECIPIENT, &recipient),
        (SIGNING_KEY, signing.expose()),
        (PUBLIC_KEY, &public.to_text()),
        (SHEET, sheet.expose()),
    ] {
        write_new(&dir.join(name), text)?;
    }

    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
    let shown = dir.display();
    let text = format!(
        "Keys are in {shown}. Print {SHEET}, lock it away, and remove it here.\n\
         For the configuration:\n\n\
         [keys]\n\
         recipients = [\"{}\"]\n\
         identity_file = \"{shown}/{IDENTITY}\"     # only where restores happen\n\
         signing_key_file = \"{shown}/{SIGNING_KEY}\"  # only where backups are made\n\
         trusted_keys = [\"{public}\"]\n",
        age.recipient,
    );
    let json = json!({
        "dir": dir,
        "recipient": age.recipient,
        "public_key": public.to_string(),
        "files": [IDENTITY, RECIPIENT, SIGNING_KEY, PUBLIC_KEY, SHEET],
    });
    Ok(Answer::ok(text, json))
}

/// Twice on a terminal, without echo; otherwise the first line of stdin.
fn ask() -> Result<Secret> {
    let unread = |e| Error::io("the passphrase cannot be read", e);
    let first = if io::stdin().is_terminal() {
        let first = rpassword::prompt_password("Passphrase for minisign.key: ").map_err(unread)?;
        let second = rpassword::prompt_password("Once more: ").map_err(unread)?;
        if first != second {
            return Err(Error::new(
                ErrorKind::Invalid,
                "the passphrases differ; try again",
            ));
        }
        first
    } else {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map_err(unread)?;
        line.trim_end_matches(['\n', '\r']).to_owned()
    };
    if first.is_empty() {
        return Err(Error::new(
            ErrorKind::Invalid,
            "the passphrase is empty; leave --passphrase out for none",
        ));
    }
    Ok(Secret::new(first))
}

fn make_dir(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Error::io(format!("folder {} cannot be made", dir.display()), e))
}

/// All are 0600, the public ones too: nobody but the owner has business in this folder.
fn write_new(path: &Path, text: &str) -> Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(|e| Error::io(format!("{} cannot be written", path.display()), e))
}

fn sheet(age: &AgeKeyPair, public: &str, today: Stamp, protected: bool) -> Secret {
    let identity = age
        .identity
        .expose()
        .lines()
        .find(|line| line.starts_with("AGE-SECRET-KEY-"))
        .unwrap_or_default();
    let passphrase = if protected {
        "\nThe signing key is not on this sheet; it has a passphrase, which is not here either.\n"
    } else {
        "\nThe signing key is not on this sheet: to restore, nobody needs it.\n"
    };
    Secret::new(format!(
        "# Recovery sheet\n\n\
         Made {today}. Print it, lock it away in two places, and delete the file: whoever holds\n\
         this sheet can read every backup.\n\n\
         - What decrypts (identity): `{identity}`\n\
         - What encrypts (recipient): `{recipient}`\n\
         - Who signs (public key): `{public}`\n\
         {passphrase}\n\
         Where the backups are (write it by hand):\n\n\
         ______________________________________________________________\n\n\
         ## Without any of our software\n\n\
         Stock tools: `age`, `zstd`, `minisign`, `sha256sum`, `tar`. Put the identity into a file\n\
         `identity.txt`, go into the folder of a backup (the newest that has a `manifest.json`):\n\n\
         ```sh\n\
         minisign -Vm SHA256SUMS -P {public}\n\
         sha256sum -c SHA256SUMS\n\
         cat RESTORE.md      # the exact commands for this backup; usually:\n\
         age -d -i identity.txt PART.zst.age | zstd -dc > PART\n\
         ```\n\n\
         Check the public key against this sheet, never against the place where the backups are.\n",
        recipient = age.recipient,
    ))
}
