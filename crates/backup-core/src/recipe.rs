//! `RESTORE.md`: how *this* backup comes back with stock tools alone.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::manifest::{Manifest, PartRecord};
use crate::{Error, ErrorKind, Pipeline, RestoreStep, Result, StockCommand};

/// Renders the instructions. The commands are POSIX shell; a test of ours runs them as they are.
pub(crate) fn render(
    manifest: &Manifest,
    steps: &[RestoreStep],
    pipeline: &Pipeline,
) -> Result<String> {
    let mut text = String::new();
    write(&mut text, manifest, steps, pipeline)
        .map_err(|e| Error::new(ErrorKind::Other, "write RESTORE.md").with_source(e))?;
    Ok(text)
}

fn write(
    text: &mut String,
    manifest: &Manifest,
    steps: &[RestoreStep],
    pipeline: &Pipeline,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let signed = pipeline.signer.is_some();
    let undo: Vec<Vec<StockCommand>> = manifest
        .parts
        .iter()
        .map(|part| undo(part, pipeline))
        .collect::<Result<_>>()?;
    let needs_identity = undo
        .iter()
        .flatten()
        .any(|command| command.argv().iter().any(|word| word.contains("$IDENTITY")));

    writeln!(
        text,
        "# How to restore {} of job `{}`\n",
        manifest.id, manifest.job
    )?;
    writeln!(
        text,
        "A backup of kind `{}`, finished {}. These commands need no Lifebelt: only a POSIX shell, {}.\n",
        manifest.kind,
        manifest.finished,
        tools(&undo, steps, signed),
    )?;
    writeln!(
        text,
        "Run them in the folder that holds this file. Set these first:\n"
    )?;
    writeln!(text, "```sh")?;
    writeln!(text, "set -eu")?;
    if signed {
        writeln!(
            text,
            ": \"${{PUBLIC_KEY:?the minisign.pub of your recovery sheet, never one from this place}}\""
        )?;
    }
    if needs_identity {
        writeln!(text, ": \"${{IDENTITY:?the file with your age identity}}\"")?;
    }
    writeln!(text, ": \"${{TARGET:?where to restore to}}\"")?;
    writeln!(text, "```\n")?;

    writeln!(text, "## 1. Check that it is whole\n")?;
    writeln!(text, "```sh")?;
    if signed {
        writeln!(text, "minisign -V -p \"$PUBLIC_KEY\" -m manifest.json")?;
        writeln!(text, "minisign -V -p \"$PUBLIC_KEY\" -m SHA256SUMS")?;
    }
    writeln!(text, "sha256sum -c SHA256SUMS")?;
    for folder in ancestors(manifest) {
        writeln!(text, "(cd {folder} && sha256sum -c SHA256SUMS)")?;
    }
    writeln!(text, "```\n")?;
    if signed {
        writeln!(
            text,
            "Both signatures must name this backup: `lifebelt 1 {}/{}/…`.\n",
            manifest.job, manifest.id
        )?;
    }

    writeln!(text, "## 2. Bring it back\n")?;
    if let Some(receipt) = &manifest.receipt {
        writeln!(
            text,
            "The store keeps the data itself. Its receipt:\n\n```json\n{receipt:#}\n```\n"
        )?;
    }
    for (part, undo) in manifest.parts.iter().zip(&undo) {
        let step = steps.iter().find(|step| step.part == part.name);
        let what = step.map_or("write it to a file", |step| &step.what);
        writeln!(
            text,
            "`{}`: {} bytes with SHA-256 `{}`; {what}.\n",
            part.name, part.plain.len, part.plain.sha256
        )?;
        writeln!(text, "```sh")?;
        let files: Vec<String> = part
            .objects
            .iter()
            .map(|o| relative(manifest, o.key.as_str()))
            .collect();
        write!(text, "cat {}", files.join(" "))?;
        undo.iter()
            .try_for_each(|command| write!(text, " | {command}"))?;
        match step {
            Some(step) => writeln!(text, " | {}", step.command)?,
            None => writeln!(text, " > \"$TARGET/{}\"", part.name)?,
        }
        writeln!(text, "```\n")?;
    }
    Ok(())
}

/// The stock commands that undo every stage that changed the bytes, last stage first.
fn undo(part: &PartRecord, pipeline: &Pipeline) -> Result<Vec<StockCommand>> {
    let stages = pipeline.stages_named(&part.transforms)?;
    let changing = stages
        .iter()
        .rev()
        .filter(|stage| !stage.suffix().is_empty());
    Ok(changing.map(|stage| stage.undo()).collect())
}

fn tools(undo: &[Vec<StockCommand>], steps: &[RestoreStep], signed: bool) -> String {
    let mut names: BTreeSet<&str> = undo.iter().flatten().map(StockCommand::program).collect();
    names.extend(steps.iter().map(|step| step.command.program()));
    names.insert("sha256sum");
    if signed {
        names.insert("minisign");
    }
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// The folders of the ancestors whose objects this backup uses.
fn ancestors(manifest: &Manifest) -> BTreeSet<String> {
    let objects = manifest.parts.iter().flat_map(|part| &part.objects);
    let paths = objects.map(|object| relative(manifest, object.key.as_str()));
    paths
        .filter_map(|path| path.rsplit_once('/').map(|(folder, _)| folder.to_owned()))
        .collect()
}

/// The path of `key` from the backup's own folder.
fn relative(manifest: &Manifest, key: &str) -> String {
    let own = format!("{}/{}/", manifest.job, manifest.id);
    match (
        key.strip_prefix(&own),
        key.strip_prefix(&format!("{}/", manifest.job)),
    ) {
        (Some(name), _) => name.to_owned(),
        (None, Some(rest)) => format!("../{rest}"),
        (None, None) => format!("../../{key}"),
    }
}
