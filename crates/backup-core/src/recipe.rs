//! `RESTORE.md`: how *this* backup comes back with stock tools alone.
//!
//! A shell looks only at the last command of a pipe, and not every `sh` knows `pipefail`. So
//! nothing is written before every part was decoded once into `sha256sum` and had the hash that
//! it was backed up with: a stage that fails there, a missing or damaged object of this backup or
//! of an ancestor gives another hash. The decoding that then feeds the store runs under `try`,
//! which remembers every command of a pipe that failed.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::manifest::{Manifest, PartRecord};
use crate::{
    Error, ErrorKind, Key, Pipeline, RestoreStep, Result, StockCommand, document, layout, sums,
};

/// Prints the commands of the instructions that come to it, for a shell.
const EXTRACT: &str = r"sed -n '/^```sh$/,/^```$/{/^```/!p;}' RESTORE.md";

/// Renders the instructions. The commands are POSIX shell; a test of ours runs them as they are.
pub(crate) fn render(
    manifest: &Manifest,
    steps: &[RestoreStep],
    pipeline: &Pipeline,
) -> Result<String> {
    let recipe = Recipe::new(manifest, steps, pipeline)?;
    let mut text = String::new();
    recipe
        .write(&mut text)
        .map_err(|e| Error::new(ErrorKind::Other, "write RESTORE.md").with_source(e))?;
    Ok(text)
}

struct Recipe<'a> {
    manifest: &'a Manifest,
    parts: Vec<Part<'a>>,
    /// In the order in which they are done. One part may have several.
    steps: Vec<Step<'a>>,
    /// What is signed besides, with the trusted comment that binds it to this backup.
    signed: Vec<(&'static str, String)>,
}

struct Part<'a> {
    record: &'a PartRecord,
    /// From its objects to its plain bytes.
    decode: Vec<StockCommand>,
}

struct Step<'a> {
    part: usize,
    /// `None`: the source does not say what to do with this part.
    how: Option<&'a RestoreStep>,
}

/// The steps as the source gives them, then the parts that it does not speak of.
fn order<'a>(parts: &[PartRecord], steps: &'a [RestoreStep]) -> Vec<Step<'a>> {
    let told = steps.iter().flat_map(|how| {
        let fitting = parts.iter().enumerate();
        let fitting = fitting.filter(|(_, part)| how.fits(&part.name));
        let how = Some(how);
        fitting.map(move |(part, _)| Step { part, how })
    });
    let untold = parts.iter().enumerate().filter(|(_, part)| {
        let told = steps.iter().any(|step| step.fits(&part.name));
        !told
    });
    told.chain(untold.map(|(part, _)| Step { part, how: None }))
        .collect()
}

impl<'a> Recipe<'a> {
    fn new(manifest: &'a Manifest, steps: &'a [RestoreStep], pipeline: &Pipeline) -> Result<Self> {
        let part = |record: &'a PartRecord| {
            let files = record.objects.iter().map(|o| relative(manifest, &o.key));
            let join = StockCommand::new(std::iter::once("cat".to_owned()).chain(files));
            Ok(Part {
                record,
                decode: std::iter::once(join)
                    .chain(undo(record, pipeline)?)
                    .collect(),
            })
        };
        let comment = |name| {
            let key = layout::object(&manifest.job, &manifest.id, name)?;
            Ok((name, document::comment(&key)))
        };
        let signed: &[_] = match pipeline.signer {
            Some(_) => &[layout::MANIFEST, layout::SUMS],
            None => &[],
        };
        Ok(Self {
            manifest,
            parts: manifest.parts.iter().map(part).collect::<Result<_>>()?,
            steps: order(&manifest.parts, steps),
            signed: signed
                .iter()
                .map(|name| comment(*name))
                .collect::<Result<_>>()?,
        })
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let manifest = self.manifest;
        writeln!(
            text,
            "# How to restore {} of job `{}`\n",
            manifest.id, manifest.job
        )?;
        writeln!(
            text,
            "A backup of kind `{}`, finished {}. These commands need no Lifebelt: only a POSIX shell with its usual tools, {}.\n",
            manifest.kind,
            manifest.finished,
            self.tools(),
        )?;
        writeln!(
            text,
            "Run them in the folder that holds this file, all in one shell: it ends at the first that fails. Or export the variables and run all at once:\n"
        )?;
        writeln!(text, "    {EXTRACT} | sh\n")?;
        self.write_setup(text)?;
        self.write_checks(text)?;
        self.write_steps(text)
    }

    fn write_setup(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "```sh\nset -eu")?;
        if !self.signed.is_empty() {
            writeln!(
                text,
                ": \"${{PUBLIC_KEY:?the minisign.pub of your recovery sheet, never one from this place}}\""
            )?;
        }
        let mut words = self.decode_commands().flat_map(StockCommand::argv);
        if words.any(|word| word.contains("$IDENTITY")) {
            writeln!(text, ": \"${{IDENTITY:?the file with your age identity}}\"")?;
        }
        if !self.parts.is_empty() {
            writeln!(text, ": \"${{TARGET:?where to restore to}}\"")?;
            writeln!(text, "failed=$(mktemp)")?;
            writeln!(text, "trap 'rm -f \"$failed\"' EXIT")?;
            writeln!(
                text,
                "try() {{ \"$@\" || echo \"failed: $*\" >>\"$failed\"; }}"
            )?;
        }
        writeln!(text, "```\n")
    }

    fn write_checks(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "## 1. Check that it is whole\n")?;
        if !self.signed.is_empty() {
            writeln!(
                text,
                "The signatures must be by your key, and for this backup.\n"
            )?;
        }
        writeln!(text, "```sh\nset -eu")?;
        for (name, comment) in &self.signed {
            writeln!(
                text,
                "minisign -VQ -p \"$PUBLIC_KEY\" -m {name} | grep -xF '{comment}'"
            )?;
        }
        // A line that is none is skipped by `sha256sum`, with a warning: the others decide.
        let lines = sums::lines(self.manifest);
        writeln!(
            text,
            "test \"$(grep -cxE '[0-9a-f]{{64}}  .+' SHA256SUMS)\" = {lines}"
        )?;
        writeln!(text, "sha256sum -c SHA256SUMS\n```\n")?;
        if self.parts.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "Every part must decode to what was backed up. Nothing is written yet.\n"
        )?;
        writeln!(text, "```sh\nset -eu")?;
        for part in &self.parts {
            part.write_decode(text, "")?;
            writeln!(
                text,
                " | sha256sum | grep -xF '{}  -'",
                part.record.plain.sha256
            )?;
        }
        writeln!(text, "```\n")
    }

    fn write_steps(&self, text: &mut String) -> std::fmt::Result {
        let manifest = self.manifest;
        writeln!(text, "## 2. Bring it back\n")?;
        if let Some(receipt) = &manifest.receipt {
            writeln!(
                text,
                "The store keeps the data itself. Its receipt:\n\n```json\n{receipt:#}\n```\n"
            )?;
        }
        for step in &self.steps {
            let part = &self.parts[step.part];
            let (name, len) = (&part.record.name, part.record.plain.len);
            let what = step.how.map_or("write it to a file", |how| &how.what);
            writeln!(text, "`{name}`, {len} bytes: {what}.\n")?;
            writeln!(text, "```sh\nset -eu")?;
            part.write_decode(text, "try ")?;
            match step.how {
                Some(how) => writeln!(text, " | {}", how.command)?,
                None => writeln!(text, " > \"$TARGET/{name}\"")?,
            }
            writeln!(text, "cat \"$failed\"; test ! -s \"$failed\"")?;
            writeln!(text, "```\n")?;
        }
        if self.parts.is_empty() {
            return Ok(());
        }
        writeln!(text, "All of it is back only if the last line says so.\n")?;
        writeln!(text, "```sh")?;
        writeln!(
            text,
            "echo 'restored {} of job {}'",
            manifest.id, manifest.job
        )?;
        writeln!(text, "```")
    }

    fn decode_commands(&self) -> impl Iterator<Item = &StockCommand> {
        self.parts.iter().flat_map(|part| &part.decode)
    }

    fn tools(&self) -> String {
        let steps = || self.steps.iter().filter_map(|step| step.how);
        let mut names: BTreeSet<&str> = steps()
            .map(|how| &how.command)
            .chain(self.decode_commands())
            .map(StockCommand::program)
            .filter(|name| !["cat", "dd"].contains(name))
            .collect();
        names.extend(steps().flat_map(|how| &how.tools).map(String::as_str));
        names.insert("sha256sum");
        if !self.signed.is_empty() {
            names.insert("minisign");
        }
        let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    }
}

impl Part<'_> {
    fn write_decode(&self, text: &mut String, each: &str) -> std::fmt::Result {
        for (i, command) in self.decode.iter().enumerate() {
            let pipe = if i > 0 { " | " } else { "" };
            write!(text, "{pipe}{each}{command}")?;
        }
        Ok(())
    }
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

/// The path of `key` from the backup's own folder.
fn relative(manifest: &Manifest, key: &Key) -> String {
    let own = format!("{}/{}/", manifest.job, manifest.id);
    let (key, job) = (key.as_str(), format!("{}/", manifest.job));
    match (key.strip_prefix(&own), key.strip_prefix(&job)) {
        (Some(name), _) => name.to_owned(),
        (None, Some(rest)) => format!("../{rest}"),
        (None, None) => format!("../../{key}"),
    }
}
