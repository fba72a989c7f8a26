//! Affinity: a client's requests go to one endpoint while that endpoint is usable.
//!
//! A cookie names its endpoint by a token. An address or a header value is tied by rendezvous hashing: each endpoint
//! draws a number from the key and itself, the highest wins, so that when an endpoint goes only its own clients move.
//! Both are the same in every gateway and after a restart.

use std::net::IpAddr;

use super::Choice;
use super::usable::Seat;
use crate::cluster::AffinityKey;

/// The seat that the key leads to; none for a cookie whose endpoint is not usable.
pub(super) fn choose(choice: &Choice<'_>, key: AffinityKey<'_>) -> Option<usize> {
    let seats = choice.usable.seats();
    let untried = (0..seats.len()).filter(|&seat| !choice.is_tried(seat));
    match hash_of(key) {
        Tie::Token(token) => {
            let mut untried = untried;
            untried.find(|&seat| Some(seats[seat].token) == token)
        }
        Tie::Hash(hash) => untried
            .map(|seat| (seat, draw(hash, &seats[seat])))
            .max_by(|(_, a), (_, b)| a.total_cmp(b))
            .map(|(seat, _)| seat),
    }
}

/// Whether the key would lead to `candidate` if it stood among `seats`.
pub(super) fn leads_to(key: AffinityKey<'_>, candidate: &Seat, seats: &[Seat]) -> bool {
    match hash_of(key) {
        Tie::Token(token) => Some(candidate.token) == token,
        Tie::Hash(hash) => {
            let drawn = draw(hash, candidate);
            seats.iter().all(|seat| draw(hash, seat) < drawn)
        }
    }
}

enum Tie {
    Token(Option<u64>),
    Hash(u64),
}

fn hash_of(key: AffinityKey<'_>) -> Tie {
    match key {
        AffinityKey::ClientIp(IpAddr::V4(ip)) => Tie::Hash(stable_hash(&[&ip.octets()])),
        AffinityKey::ClientIp(IpAddr::V6(ip)) => Tie::Hash(stable_hash(&[&ip.octets()])),
        AffinityKey::Header(value) => Tie::Hash(stable_hash(&[value])),
        AffinityKey::Cookie(token) => Tie::Token(parse_token(token)),
    }
}

fn parse_token(token: &str) -> Option<u64> {
    let is_token = token.len() == 16 && token.bytes().all(|b| b.is_ascii_hexdigit());
    if is_token { u64::from_str_radix(token, 16).ok() } else { None }
}

/// The number that an endpoint draws for a key: weighted rendezvous (`-weight / ln u`), so that shares follow weights.
fn draw(key: u64, seat: &Seat) -> f64 {
    let mixed = finish(key ^ seat.token);
    let uniform = ((mixed >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -f64::from(seat.weight) / uniform.ln()
}

/// A hash that is the same in every process and release (FNV-1a with a final mix); parts are kept apart.
pub(crate) fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for &byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    finish(hash)
}

/// Spreads every bit over all others (the finaliser of SplitMix64).
fn finish(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
