//! Connections of HTTP/2, and requests on their streams.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::clock::Lane;
use super::draw::Draw;
use super::fault::{Fault, Step};
use super::wire::Wire;
use super::work::Work;
use crate::load::FailureKind;

/// Large enough that no answer waits for a word from here.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// One connection that many lanes use, opened again when it ends.
#[derive(Debug)]
pub(super) struct Connection {
    link: RefCell<Option<Link>>,
    opening: Mutex<()>,
}

#[derive(Debug, Clone)]
struct Link {
    sender: SendRequest<Bytes>,
    driver: Rc<Driver>,
}

/// Dropping it closes the connection.
#[derive(Debug)]
struct Driver(AbortHandle);

/// Sends requests on one stream after the other, until no more are sent.
pub(super) async fn keep_sending(work: Rc<Work>, lane: Rc<Lane>, connection: Rc<Connection>) {
    let mut now = Instant::now();
    while let Some(due) = work.pacer.next(now).await {
        let draw = work.draw();
        let result = work.within(&lane, due, exchange(&work, &lane, &connection, draw)).await;
        now = Instant::now();
        work.ended(due, now, &result).await;
    }
}

async fn exchange(work: &Work, lane: &Lane, connection: &Connection, draw: Draw) -> Result<u16, Fault> {
    let link = connection.link(work).await?;
    lane.step(Step::Waiting);
    let result = ask(&link, work, lane, draw).await;
    match result {
        Ok(status) => work.judge(status),
        Err((error, begun)) => {
            if !error.is_reset() || error.is_go_away() || error.is_io() {
                connection.give_up(&link);
            }
            Err(fault(&error, begun))
        }
    }
}

/// Asks, and reads the answer to its end; an error comes with whether the answer had begun.
async fn ask(link: &Link, work: &Work, lane: &Lane, draw: Draw) -> Result<u16, (h2::Error, bool)> {
    let request = work.request(draw);
    let before = |error| (error, false);
    let mut sender = link.sender.clone().ready().await.map_err(before)?;
    let (response, mut sending) =
        sender.send_request(request.head.clone(), request.body.is_empty()).map_err(before)?;
    if !request.body.is_empty() {
        // The crate keeps what the window does not allow yet.
        sending.send_data(request.body.clone(), true).map_err(before)?;
    }
    let mut response = response.await.map_err(before)?;
    lane.step(Step::Reading);
    let status = response.status().as_u16();
    let body = response.body_mut();
    while let Some(data) = body.data().await {
        let length = data.map_err(|error| (error, true))?.len();
        body.flow_control().release_capacity(length).map_err(|error| (error, true))?;
    }
    Ok(status)
}

impl Connection {
    /// Over an open connection, or to be opened by the first request.
    pub(super) async fn new(wire: Option<Wire>) -> Rc<Self> {
        let link = match wire {
            Some(wire) => Link::over(wire).await.ok(),
            None => None,
        };
        Rc::new(Self { link: RefCell::new(link), opening: Mutex::new(()) })
    }

    /// What to send on. Of the lanes that find none, one opens it for all.
    async fn link(&self, work: &Work) -> Result<Link, Fault> {
        if let Some(link) = &*self.link.borrow() {
            return Ok(link.clone());
        }
        let _only_one = self.opening.lock().await;
        if let Some(link) = &*self.link.borrow() {
            return Ok(link.clone());
        }
        let link = Link::over(Wire::open(&work.plan).await?)
            .await
            .map_err(|error| Fault::new(FailureKind::ConnectFailed, format!("HTTP/2: {error}")))?;
        work.book.borrow_mut().opened += 1;
        *self.link.borrow_mut() = Some(link.clone());
        Ok(link)
    }

    /// It has ended: the next request opens another, unless one has been opened already.
    fn give_up(&self, link: &Link) {
        let mut current = self.link.borrow_mut();
        if current.as_ref().is_some_and(|current| Rc::ptr_eq(&current.driver, &link.driver)) {
            *current = None;
        }
    }
}

impl Link {
    async fn over(wire: Wire) -> Result<Self, h2::Error> {
        let (sender, connection) = Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_push(false)
            .handshake(wire)
            .await?;
        // Its error is also the error of each request under way; without one, it is no one's.
        let driver = tokio::task::spawn_local(async move { drop(connection.await) }).abort_handle();
        Ok(Self { sender, driver: Rc::new(Driver(driver)) })
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn fault(error: &h2::Error, begun: bool) -> Fault {
    if let Some(error) = error.get_io() {
        return Fault::broken(error, begun);
    }
    let kind = match () {
        () if begun => FailureKind::MidBody,
        () if error.is_remote() => FailureKind::Reset,
        () => FailureKind::Protocol,
    };
    Fault::new(kind, error.to_string())
}
