//! A plugin of your own, whole: backs up a journal, which is complete when its last line is `END`.
use lifebelt::*;
use std::{fs, io, path::PathBuf};

#[derive(Debug)]
struct Journal(PathBuf);
#[async_trait]
impl Source for Journal {
    fn kind(&self) -> &str {
        "journal"
    }
    async fn backup(&self, _: &Request, out: &PartWriter) -> Result<Facts> {
        let lines = Lines(fs::File::open(&self.0)?, Vec::new());
        let data = ByteStream::from_reader("journal", lines);
        out.write("journal.txt", data).await?;
        Ok(Facts::new().with("path", self.0.display().to_string()))
    }
    fn restore_steps(&self) -> Vec<RestoreStep> {
        let command = ["cp", "/dev/stdin", "$TARGET"];
        let write = RestoreStep::new("journal.txt", "write it to a file", command);
        vec![write]
    }
}

/// The file and its last bytes so far: if its writer died it ends all the same, but not in `END`.
struct Lines(fs::File, Vec<u8>);
impl io::Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.extend(&buffer[..n]);
        self.1.drain(..self.1.len().saturating_sub(5));
        match n {
            0 if self.1 != b"\nEND\n" => Err(Error::new(ErrorKind::Source, "no END").into()),
            n => Ok(n),
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let job = Job::builder("till").source(journal(&folder, "END\n"));
    let job = job.pipeline(Pipeline::unencrypted().compress(transform::Zstd::level(3)));
    let job = job.sink("memory", MemorySink::new()).build()?;
    let id = job.run(RunOptions::default()).await?.id;
    let back = folder.path().join("back");
    job.fetch(&id, &back, true, None).await?;
    assert!(fs::read(back.join("journal.txt"))? == fs::read(folder.path().join("journal"))?);
    println!("{id} came back as it was");
    Ok(())
}

fn journal(folder: &tempfile::TempDir, end: &str) -> Journal {
    let path = folder.path().join("journal");
    fs::write(&path, "7 anvils\n".repeat(400_000) + end).expect("room for a file");
    Journal(path)
}
#[cfg(test)]
mod tests {
    use super::{testing::source, *};
    use std::sync::Arc;
    source!(kit, async { Fixture(tempfile::tempdir().expect("room")) });
    struct Fixture(tempfile::TempDir);
    #[async_trait]
    impl source::SourceFixture for Fixture {
        fn source(&self) -> Arc<dyn Source> {
            Arc::new(journal(&self.0, "END\n"))
        }
        async fn seed(&self) -> String {
            "7 anvils, 400,000 times".into()
        }
        async fn break_midway(&self) -> Arc<dyn Source> {
            Arc::new(journal(&self.0, "7 anv"))
        }
        async fn leftovers(&self) -> Vec<String> {
            Vec::new()
        }
    }
}
