//! Free ports on loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::bail;

/// Below the range from which the system takes the near ends of outgoing connections: a port from there may be taken
/// between its choice and its use, by the load itself.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// Ports on 127.0.0.1 that nobody listens on.
///
/// # Errors
/// If there are not so many.
pub(super) fn free(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let offset = fastrand::u16(..COUNT);
    let addresses = (0..COUNT)
        .map(|index| SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + (offset + index) % COUNT)))
        .filter(|address| TcpListener::bind(address).is_ok());
    let found: Vec<_> = addresses.take(count).collect();
    if found.len() < count {
        bail!("127.0.0.1 has no {count} free ports from {FIRST} to {}", FIRST + COUNT - 1);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_differ_and_can_be_listened_on() {
        let ports = free(3).unwrap();
        let listeners: Vec<_> = ports.iter().map(|address| TcpListener::bind(address).unwrap()).collect();
        assert_eq!(listeners.len(), 3);
        assert!(ports.iter().all(|address| (FIRST..FIRST + COUNT).contains(&address.port())));
    }
}
