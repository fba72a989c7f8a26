//! Sockets to listen on.
//!
//! Every worker has a socket of its own on the same address (`SO_REUSEPORT`), and the kernel spreads connections over
//! them. The same option would let a second gateway join in silently and take half of the traffic. So before the real
//! sockets one without the option is bound and closed again: that fails if anybody listens on the address already.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Binds and listens on the address, once for each worker. With port 0, all get the same free port.
///
/// # Errors
/// If somebody listens on the address already (`AddrInUse`), or it may not or cannot be bound.
pub(super) fn bind(address: SocketAddr, workers: usize, backlog: u32) -> io::Result<Vec<TcpListener>> {
    probe(address)?;
    let first = listening(address, backlog)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(listening(address, backlog)?);
    }
    Ok(sockets)
}

/// Finds out whether the address could be bound now, without doing so.
///
/// # Errors
/// If somebody listens on the address already (`AddrInUse`), or it may not or cannot be bound.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    if address.port() != 0 {
        drop(socket(address, false)?);
    }
    Ok(())
}

fn listening(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = socket(address, true)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a former process that are not quite gone must not keep the port.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Both families, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    // Accepted connections inherit it. Without it, a response in two pieces waits for the client's delayed acknowledgement.
    socket.set_tcp_nodelay(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    #[test]
    fn all_workers_share_one_port() {
        let sockets = bind(any(), 3, 16).unwrap();
        let ports: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        assert!(ports.iter().all(|port| *port == ports[0] && *port != 0), "{ports:?}");
    }

    #[test]
    fn accepted_connections_wait_for_no_acknowledgement() {
        let socket = listening(any(), 16).unwrap();
        let _client = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(false).unwrap();
        assert!(socket.accept().unwrap().0.nodelay().unwrap());
    }

    #[test]
    fn an_address_that_is_listened_on_is_refused_even_if_it_is_shared() {
        let held = bind(any(), 1, 16).unwrap();
        let address = held[0].local_addr().unwrap();
        assert_eq!(bind(address, 2, 16).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(held);
        bind(address, 2, 16).unwrap();
    }
}
