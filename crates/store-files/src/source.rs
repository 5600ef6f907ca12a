use backup_core::{
    ByteStream, Facts, PartWriter, Request, RestoreStep, Result, Source, StockCommand, async_trait,
};

use crate::archive::Archive;
use crate::counts::Counts;
use crate::{Files, KIND, PART};

#[async_trait]
impl Source for Files {
    fn kind(&self) -> &str {
        KIND
    }

    /// Facts: `entries`, `bytes`, and where there are any `excluded`, `vanished`, `changed` and
    /// `skipped`, the last three with their first names (`skipped_names`).
    async fn backup(&self, _: &Request, out: &PartWriter) -> Result<Facts> {
        let counts = Counts::default();
        let archive = Archive::new(self.clone(), counts.clone());
        out.write(PART, ByteStream::from_reader("files", archive))
            .await?;
        Ok(counts.facts())
    }

    fn restore_steps(&self) -> Vec<RestoreStep> {
        vec![RestoreStep {
            part: PART.into(),
            what: "unpack into an empty folder".into(),
            // Owners are numbers; with --numeric-owner nothing on the other host translates them.
            command: StockCommand::new(["tar", "--numeric-owner", "-xpf", "-", "-C", "$TARGET"]),
            tools: Vec::new(),
        }]
    }
}
