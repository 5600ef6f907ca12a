//! Small signed documents: manifests, checksums, attestations, prune records.

use bytes::Bytes;

use crate::{
    ByteStream, Error, ErrorKind, Key, Object, PutOptions, Result, Signer, Sink, Verifier, layout,
};

/// No signature file is longer.
const SIGNATURE_LIMIT: usize = 4096;

/// Reads a whole small object.
pub(crate) async fn read(sink: &dyn Sink, key: &Key, limit: usize) -> Result<Bytes> {
    let named = |error: Error| error.context(format!("read `{key}`"));
    let stream = sink.get(&key.into(), None).await.map_err(named)?;
    stream.collect(limit).await.map_err(named)
}

/// Stores a whole small object.
pub(crate) async fn write(
    sink: &dyn Sink,
    key: &Key,
    bytes: impl Into<Bytes>,
    options: &PutOptions,
) -> Result<Object> {
    let bytes = bytes.into();
    let len = bytes.len() as u64;
    let object = sink
        .put(key, ByteStream::from_bytes(bytes), options)
        .await
        .map_err(|e| e.context(format!("put `{key}`")))?;
    check_len(&object, len)?;
    Ok(object)
}

/// What a sink says it stored must be what it was given.
pub(crate) fn check_len(object: &Object, len: u64) -> Result<()> {
    if object.len == len {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Sink,
        format!(
            "`{}` has {} bytes in the sink after {len} were written",
            object.key, object.len
        ),
    ))
}

/// Stores the signature of `bytes` beside `key`, then `bytes`: a document whose signature is
/// missing was never finished.
pub(crate) async fn write_signed(
    sink: &dyn Sink,
    key: &Key,
    bytes: Vec<u8>,
    comment: &str,
    signer: Option<&dyn Signer>,
) -> Result<()> {
    let options = PutOptions::default();
    if let Some(signer) = signer {
        let signature = signer.sign(&bytes, comment)?;
        write(sink, &layout::signature(key)?, signature, &options).await?;
    }
    write(sink, key, bytes, &options).await?;
    Ok(())
}

/// Checks `bytes` of `key` against the signature beside it, where keys are trusted.
///
/// `comment` is what its trusted comment must say: it binds the signature to this one document of
/// this one backup.
pub(crate) async fn check_signature(
    sink: &dyn Sink,
    key: &Key,
    bytes: &[u8],
    comment: &str,
    verifier: Option<&dyn Verifier>,
) -> Result<()> {
    let Some(verifier) = verifier else {
        return Ok(());
    };
    let beside = layout::signature(key)?;
    let signature = match read(sink, &beside, SIGNATURE_LIMIT).await {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("`{beside}` is missing: with trusted keys set, unsigned is refused"),
            ));
        }
        Err(e) => return Err(e),
    };
    let corrupt = |why: String| Error::new(ErrorKind::Corrupt, why);
    let text = std::str::from_utf8(&signature)
        .map_err(|_| corrupt(format!("`{beside}` is no signature")))?;
    let signed = verifier
        .verify(bytes, text)
        .map_err(|e| corrupt(format!("`{key}` does not fit `{beside}`")).with_source(e))?;
    if signed != comment {
        return Err(corrupt(format!(
            "`{key}`: `{beside}` is the signature of something else: its comment is {signed:?}, not {comment:?}"
        )));
    }
    Ok(())
}

/// Reads a document and checks its signature.
pub(crate) async fn read_signed(
    sink: &dyn Sink,
    key: &Key,
    limit: usize,
    comment: &str,
    verifier: Option<&dyn Verifier>,
) -> Result<Bytes> {
    let bytes = read(sink, key, limit).await?;
    check_signature(sink, key, &bytes, comment, verifier).await?;
    Ok(bytes)
}

/// What the signature of the document at `key` says it is for.
pub(crate) fn comment(key: &Key) -> String {
    format!("lifebelt 1 {key}")
}
