//! Until when backups are locked.

use std::collections::BTreeMap;
use std::time::SystemTime;

use futures::TryStreamExt;

use crate::{ErrorKind, Id, Object, Result, Sink};

/// How many objects are asked for at once.
const ASKS: usize = 8;

/// When the last lock of an object of `id` ends, as far as it is known.
pub(super) fn until(objects: &BTreeMap<Id, Vec<Object>>, id: &Id) -> Option<SystemTime> {
    let objects = objects.get(id).into_iter().flatten();
    objects.filter_map(|object| object.lock_until).max()
}

/// Asks for the locks of all objects of `ids` of which a listing said none.
pub(super) async fn learn(
    sink: &dyn Sink,
    objects: &mut BTreeMap<Id, Vec<Object>>,
    ids: &[&Id],
) -> Result<()> {
    let chosen = objects.iter_mut().filter(|(id, _)| ids.contains(id));
    let unknown = chosen.flat_map(|(_, objects)| objects);
    let unknown = unknown.filter(|object| object.lock_until.is_none());
    futures::stream::iter(unknown.map(Ok))
        .try_for_each_concurrent(ASKS, |object| async move {
            match sink.stat(&object.locator()).await {
                Ok(known) => object.lock_until = known.lock_until,
                // It went meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.context(format!("look at `{}`", object.key))),
            }
            Ok(())
        })
        .await
}
