//! The last published snapshot, kept in a file, so that a gateway can start while its source is away.
//!
//! **Problem.** A gateway that is restarted while the API server is away knows nothing, and so serves nothing, although
//! almost everything that it knew a moment ago still holds.
//!
//! **Choice.** One task, the [`Keeper`], writes routes and clusters beside the data path. At the start the [`Store`]
//! shows them if the sources do not answer at once, and the sources' own picture replaces them whole. The file carries
//! when the picture was last known to be right: that time goes on while every required source is in touch and stands
//! still while one is not. So a quiet Kubernetes cluster's file does not grow old, and an outage's does.
//!
//! **What is refused.** A file that is too old, from the future, of another format, taken from somewhere else or under
//! settings that would have made other routes of the same objects, too large, or not exactly as it was written. A
//! refused file is a finding, and the gateway starts as it would without one. Listeners are not in the file: they come
//! from the settings of this start.
//!
//! **Trade-offs.** The file is written anew as a whole, at most about once a second and for a tenth of the time at most,
//! so after a kill a second of changes may be missing. It is not signed: whoever may write it as the gateway's user
//! could change the gateway itself.
//!
//! [`Store`]: crate::Store

mod format;
mod keeper;
mod metrics;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdMap;
use jiff::{SignedDuration, Timestamp};
use portolan_model::{Cluster, ClusterId, Route, RouteId, Snapshot};
use serde::{Deserialize, Serialize};

pub use keeper::Keeper;
pub use metrics::FileMetrics;

/// The largest file that is written or read. Two of them stand on the disk while one replaces the other.
pub const MAX_BYTES: u64 = 100 << 20;

/// So far ahead of this machine's clock may a file's time be.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Where a picture comes from: the source, and every setting that decides which routes it makes, by name. A file is
/// taken at the start only if all of it is the same.
pub type Origin = BTreeMap<String, String>;

/// What a file says of its picture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// When the picture was last known to be right.
    pub at: Timestamp,
    /// Its generation in the process that wrote it.
    pub generation: u64,
    /// The version of Portolan that wrote it. For people: what can be read is decided by the format alone.
    pub version: String,
    /// Where it comes from.
    pub origin: Origin,
}

impl Taken {
    /// How long ago it was last known to be right; nothing if that is in the future.
    pub fn age(&self) -> Duration {
        Timestamp::now().duration_since(self.at).try_into().unwrap_or_default()
    }
}

/// A picture out of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastPicture {
    /// What the file says of it.
    pub taken: Taken,
    /// What is asked where.
    pub routes: OrdMap<RouteId, Arc<Route>>,
    /// Who answers.
    pub clusters: OrdMap<ClusterId, Arc<Cluster>>,
}

/// Why a file is not used. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It cannot be read.
    #[error("it cannot be read ({0}). Correct its rights or name another file")]
    Unreadable(#[from] io::Error),
    /// It is no file.
    #[error("it is not an ordinary file. Name a file")]
    NotAFile,
    /// It is larger than any that is written.
    #[error("it has more than {} MiB, and so was not written by Portolan. Name another file", MAX_BYTES >> 20)]
    TooLarge,
    /// It is not as it was written.
    #[error("it is garbled ({0}). It is replaced as soon as the source answers")]
    Garbled(String),
    /// Another version of Portolan wrote it in another form.
    #[error(
        "it has format {found}, and this version reads format {}. It is replaced as soon as the source answers",
        format::FORMAT
    )]
    OtherFormat {
        /// The format that it has.
        found: u64,
    },
    /// Its picture may be wrong by now.
    #[error(
        "its picture was last known to be right {age:?} ago, and at most {max_age:?} are allowed. It is replaced as \
         soon as the source answers; a longer snapshot-max-age would allow it"
    )]
    TooOld {
        /// How old it is.
        age: Duration,
        /// How old it may be.
        max_age: Duration,
    },
    /// Nobody can tell how old it is.
    #[error("its time {at} has not come yet. Correct the clock of this machine")]
    FromTheFuture {
        /// Its time.
        at: Timestamp,
    },
    /// It is the picture of something else.
    #[error(
        "it was taken elsewhere or under other settings: {differences}. It is replaced as soon as the source answers"
    )]
    OtherOrigin {
        /// What differs, each with its name.
        differences: String,
    },
}

/// Reads the picture in the file at `path`, if there is a file. Blocks.
///
/// # Errors
/// The picture must not be used; see [`Refusal`].
pub fn read(path: &Path, origin: &Origin, max_age: Duration) -> Result<Option<LastPicture>, Refusal> {
    let bytes = match contents(path) {
        Err(Refusal::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        contents => contents?,
    };
    let taken = format::taken(&bytes)?;
    judge(&taken, origin, max_age, Timestamp::now())?;
    format::decode(&bytes, taken).map(Some)
}

/// Writes a snapshot's routes and clusters to `path`: beside it first, then in its place, so that there is always a
/// whole file. Returns its size in bytes. Blocks.
///
/// # Errors
/// The file cannot be written or would be too large; what stood there stays.
pub fn write(path: &Path, snapshot: &Snapshot, at: Timestamp, origin: &Origin) -> io::Result<u64> {
    let taken = Taken {
        at,
        generation: snapshot.generation,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        origin: origin.clone(),
    };
    write::replace(path, |file| format::encode(file, &taken, snapshot))
}

fn contents(path: &Path) -> Result<Vec<u8>, Refusal> {
    // Looked at before it is opened: opening a pipe would wait for a writer.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(Refusal::NotAFile);
    }
    let mut bytes = Vec::with_capacity(metadata.len().min(MAX_BYTES) as usize);
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES { Err(Refusal::TooLarge) } else { Ok(bytes) }
}

fn judge(taken: &Taken, origin: &Origin, max_age: Duration, now: Timestamp) -> Result<(), Refusal> {
    let age = now.duration_since(taken.at);
    if age < -CLOCK_SKEW {
        return Err(Refusal::FromTheFuture { at: taken.at });
    }
    let age = Duration::try_from(age).unwrap_or_default();
    if age > max_age {
        return Err(Refusal::TooOld { age: Duration::from_secs(age.as_secs()), max_age });
    }
    if taken.origin != *origin {
        return Err(Refusal::OtherOrigin { differences: differences(&taken.origin, origin) });
    }
    Ok(())
}

fn differences(then: &Origin, now: &Origin) -> String {
    let mut names: Vec<_> = then.keys().chain(now.keys()).collect();
    names.sort();
    names.dedup();
    let text = |origin: &Origin, name| origin.get(name).map_or("nothing".to_owned(), |it| format!("{it:?}"));
    let differs = names.into_iter().filter(|name| then.get(*name) != now.get(*name));
    let each = differs.map(|name| format!("{name} was {} and is {}", text(then, name), text(now, name)));
    each.collect::<Vec<_>>().join(", ")
}

/// Where the file that will replace the one at `path` is written.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("the path names no file"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    Ok(path.with_file_name(hidden))
}
