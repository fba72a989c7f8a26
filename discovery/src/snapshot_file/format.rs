//! The form of the file: JSON, a line for each part.
//!
//! ```text
//! {"portolan-snapshot":1,"at":"2026-01-31T12:00:00Z","generation":7,"version":"0.1.0","origin":{…}}
//! {"route":{…}}                 each route, by id
//! {"cluster":{…}}               each cluster, by id
//! {"parts":2,"crc32":"0f3a…"}   how many parts there are, and the CRC-32 of every byte before this line
//! ```
//!
//! The first line can be read by any version, so that it can say what it does not understand. Whatever changes what a
//! line means, or could not be read by the version before, raises [`FORMAT`]. The test `the_format_is_pinned` notices.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use imbl::OrdMap;
use portolan_model::{Cluster, ClusterPolicy, Endpoint, Route, Snapshot};
use serde::{Deserialize, Serialize};

use super::{LastPicture, MAX_BYTES, Refusal, Taken};

/// The form that is written, and the only one that is read.
pub(super) const FORMAT: u64 = 1;

#[derive(Deserialize)]
struct Format {
    #[serde(rename = "portolan-snapshot")]
    format: u64,
}

#[derive(Serialize)]
struct Head<'a> {
    #[serde(rename = "portolan-snapshot")]
    format: u64,
    #[serde(flatten)]
    taken: &'a Taken,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Part {
    Route(Arc<Route>),
    Cluster(Arc<Cluster>),
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    parts: usize,
    crc32: String,
}

/// Writes the file's bytes; returns how many they are.
pub(super) fn encode(file: impl Write, taken: &Taken, snapshot: &Snapshot) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 16, Summed { file, crc: crc32fast::Hasher::new(), bytes: 0 });
    line(&mut out, &Head { format: FORMAT, taken })?;
    let routes = snapshot.routes.values().map(|route| Part::Route(Arc::clone(route)));
    let clusters = snapshot.clusters.values().map(|cluster| Part::Cluster(Arc::clone(cluster)));
    let mut parts = 0;
    for part in routes.chain(clusters) {
        line(&mut out, &part)?;
        parts += 1;
    }
    out.flush()?;
    let crc32 = hexadecimal(&out.get_ref().crc);
    line(&mut out, &Tail { parts, crc32 })?;
    out.flush()?;
    Ok(out.get_ref().bytes)
}

/// What the file says of its picture, before the picture itself is looked at.
pub(super) fn taken(bytes: &[u8]) -> Result<Taken, Refusal> {
    let head = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let no_head = |error| Refusal::Garbled(format!("its first line is not that of a snapshot: {error}"));
    let Format { format } = serde_json::from_slice(head).map_err(no_head)?;
    if format != FORMAT {
        return Err(Refusal::OtherFormat { found: format });
    }
    serde_json::from_slice(head).map_err(no_head)
}

/// The picture in the file.
pub(super) fn decode(bytes: &[u8], taken: Taken) -> Result<LastPicture, Refusal> {
    let mut picture = LastPicture { taken, routes: OrdMap::new(), clusters: OrdMap::new() };
    let mut policy = Arc::<ClusterPolicy>::default();
    for line in body(bytes)? {
        let part = serde_json::from_slice(line);
        match part.map_err(|error| Refusal::Garbled(format!("a part cannot be read: {error}")))? {
            Part::Route(route) => {
                let before = picture.routes.insert(route.id.clone(), route);
                once(before.as_ref().map(|it| &it.id))?;
            }
            Part::Cluster(cluster) => {
                let cluster = with_shared_policy(in_order(cluster)?, &mut policy);
                let before = picture.clusters.insert(cluster.id.clone(), cluster);
                once(before.as_ref().map(|it| &it.id))?;
            }
        }
    }
    Ok(picture)
}

/// The lines of the parts, once the sum over them is right.
fn body(bytes: &[u8]) -> Result<impl Iterator<Item = &[u8]>, Refusal> {
    let garbled = |what: &str| Refusal::Garbled(what.to_owned());
    let all = bytes.strip_suffix(b"\n").ok_or_else(|| garbled("its end is missing"))?;
    let end = all.iter().rposition(|byte| *byte == b'\n').ok_or_else(|| garbled("its end is missing"))?;
    let (summed, last) = bytes.split_at(end + 1);
    let tail: Tail = serde_json::from_slice(last).map_err(|_| garbled("its end is missing"))?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(summed);
    let lines = || summed[..end].split(|byte| *byte == b'\n').skip(1);
    if tail != (Tail { parts: lines().count(), crc32: hexadecimal(&crc) }) {
        return Err(garbled("its checksum is wrong"));
    }
    Ok(lines())
}

/// The data path counts on each endpoint once, and in order.
fn in_order(cluster: Arc<Cluster>) -> Result<Arc<Cluster>, Refusal> {
    let is_ordered = |pair: &[Endpoint]| pair[0].key < pair[1].key;
    if cluster.endpoints.windows(2).all(is_ordered) {
        Ok(cluster)
    } else {
        Err(Refusal::Garbled(format!("the endpoints of {} are not in order", cluster.id)))
    }
}

/// Most clusters have the policy of the one before, and shared it when they were written.
fn with_shared_policy(mut cluster: Arc<Cluster>, last: &mut Arc<ClusterPolicy>) -> Arc<Cluster> {
    if cluster.policy == *last {
        Arc::make_mut(&mut cluster).policy = Arc::clone(last);
    } else {
        *last = Arc::clone(&cluster.policy);
    }
    cluster
}

fn once(before: Option<&impl std::fmt::Display>) -> Result<(), Refusal> {
    match before {
        None => Ok(()),
        Some(id) => Err(Refusal::Garbled(format!("{id} is in it twice"))),
    }
}

fn line(out: &mut impl Write, part: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, part)?;
    out.write_all(b"\n")
}

fn hexadecimal(crc: &crc32fast::Hasher) -> String {
    format!("{:08x}", crc.clone().finalize())
}

/// Counts and sums what is written.
struct Summed<W> {
    file: W,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.crc.update(&bytes[..written]);
        self.bytes += written as u64;
        if self.bytes > MAX_BYTES {
            // What would not be read is not written either.
            return Err(io::Error::other(format!("it would have more than {} MiB", MAX_BYTES >> 20)));
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
