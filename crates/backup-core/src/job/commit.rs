//! The small objects of a backup, the manifest last: the commit.

use std::sync::Arc;

use futures::TryStreamExt;
use tokio::time::Instant;

use crate::manifest::Manifest;
use crate::pipeline::{Lane, Lanes};
use crate::{Error, ErrorKind, Event, Key, Observer, Result, copy, document, layout, sums};

/// Everything of a backup but its commit.
pub(super) struct Draft {
    pub(super) manifest: Manifest,
    pub(super) recipe: String,
    pub(super) lanes: Arc<Lanes>,
    pub(super) clock: Instant,
}

/// The small objects of a backup, the same bytes for every sink.
pub(super) struct Documents {
    pub(super) manifest: Vec<u8>,
    manifest_signature: Option<String>,
    sums: Vec<u8>,
    sums_signature: Option<String>,
    recipe: Vec<u8>,
}

impl Documents {
    pub(super) fn new(draft: &Draft, pipeline: &crate::Pipeline) -> Result<Self> {
        let manifest = draft.manifest.to_bytes()?;
        let recipe = draft.recipe.clone().into_bytes();
        let sums = sums::render(&draft.manifest, &manifest, &recipe).into_bytes();
        let sign = |name: &str, bytes: &[u8]| {
            let signer = pipeline.signer.as_ref();
            let key = layout::object(&draft.manifest.job, &draft.manifest.id, name)?;
            signer
                .map(|s| s.sign(bytes, &document::comment(&key)))
                .transpose()
        };
        Ok(Self {
            manifest_signature: sign(layout::MANIFEST, &manifest)?,
            sums_signature: sign(layout::SUMS, &sums)?,
            manifest,
            sums,
            recipe,
        })
    }

    pub(super) async fn commit(&self, lane: &Lane, manifest: &Manifest, observer: &dyn Observer) {
        match self.store(lane, manifest).await {
            Ok(()) => observer.event(&Event::Committed {
                sink: &lane.name,
                id: &manifest.id,
            }),
            Err(error) => lane.fail(error.context("commit"), observer),
        }
    }

    /// Stores them in the order of the format; the manifest, last, is the commit.
    async fn store(&self, lane: &Lane, manifest: &Manifest) -> Result<()> {
        let key = |name: &str| layout::object(&manifest.job, &manifest.id, name);
        lane.put(&key(layout::RESTORE)?, self.recipe.clone())
            .await?;
        if let Some(locators) = copy::render(&lane.objects())? {
            lane.put(&key(layout::COPY)?, locators).await?;
        }
        lane.put(&key(layout::SUMS)?, self.sums.clone()).await?;
        if let Some(signature) = &self.sums_signature {
            lane.put(&layout::signature(&key(layout::SUMS)?)?, signature.clone())
                .await?;
        }
        if let Some(signature) = &self.manifest_signature {
            lane.put(
                &layout::signature(&key(layout::MANIFEST)?)?,
                signature.clone(),
            )
            .await?;
        }
        self.look_back(lane, manifest).await?;
        let commit = key(layout::MANIFEST)?;
        lane.put(&commit, self.manifest.clone()).await?;
        self.read_back(lane, &commit).await
    }

    /// After the commit: the manifest must be there, byte for byte. One that is not is taken away
    /// again, as far as this writer may, so that it does not stand for a backup that nobody has.
    async fn read_back(&self, lane: &Lane, commit: &Key) -> Result<()> {
        let error = match document::read(&*lane.sink, commit, self.manifest.len()).await {
            Ok(bytes) if bytes == self.manifest => return Ok(()),
            Ok(_) => {
                let what = format!("`{commit}` has other bytes than were stored");
                Error::new(ErrorKind::Sink, what)
            }
            Err(error) => error,
        };
        let objects = lane.objects();
        if let Some(object) = objects.iter().find(|object| object.key == *commit) {
            // What counts is the failure above.
            let _ = lane.sink.delete(&object.locator()).await;
        }
        Err(error)
    }

    /// Before the commit: the sink must show exactly what this run stored there.
    async fn look_back(&self, lane: &Lane, manifest: &Manifest) -> Result<()> {
        let folder = layout::backup(&manifest.job, &manifest.id)?;
        let mut shown: Vec<_> = lane
            .sink
            .list(Some(&folder))
            .map_ok(|object| (object.key, object.len))
            .try_collect()
            .await?;
        shown.sort();
        let stored = lane
            .objects()
            .into_iter()
            .map(|object| (object.key, object.len));
        if shown != stored.collect::<Vec<_>>() {
            return Err(Error::new(
                ErrorKind::Sink,
                format!("`{folder}` does not list what was stored there: not committed"),
            ));
        }
        Ok(())
    }
}
