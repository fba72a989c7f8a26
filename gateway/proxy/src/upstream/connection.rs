//! A connection to an endpoint, as requests see it.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::response;
use tokio::net::TcpStream;

use super::leg::{Leg, LegBroken};
use crate::cluster::Endpoint;
use crate::error::Reason;
use crate::http::exchange::Exchange;
use crate::http::outbound::Outbound;
use crate::http::survey::Survey;
use crate::http1::Malformed;
use crate::http1::body::{BodyReader, Piece};
use crate::http1::framing::{Framing, is_persistent};
use crate::telemetry::Shard;
use crate::worker::Worker;

/// An open connection that can carry one request at a time. Dropping it closes it.
pub(crate) struct Connection {
    leg: Leg,
    /// Whether the last response lets another follow.
    persistent: bool,
    metrics: Arc<Shard>,
}

impl Connection {
    /// A connection that was just opened.
    pub(super) fn new(stream: TcpStream, worker: &Worker) -> Box<Self> {
        worker.metrics.upstream_opened.one();
        let (buffers, flushes) = (Rc::clone(&worker.buffers), Rc::clone(&worker.flushes));
        let leg = Leg::new(stream, worker.config().max_head_bytes, buffers, flushes);
        Box::new(Self { leg, persistent: true, metrics: Arc::clone(&worker.metrics) })
    }

    /// Begins a request; nothing is written yet.
    ///
    /// # Errors
    /// If its fields do not say clearly where its body ends.
    pub(super) fn begin(
        &mut self,
        request: &Outbound,
        endpoint: &Endpoint,
        has_body: bool,
    ) -> Result<(), Malformed> {
        self.persistent = false;
        self.leg.begin(request, endpoint.address(), has_body)
    }

    /// Sends the request that was begun, and its body as the exchange has it; ready when that is all, or no use. If the
    /// body breaks off, so does the exchange.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, exchange: &Exchange) -> Poll<()> {
        self.leg.poll_send(cx, |cx| exchange.poll_upload(cx)).map(|sent| {
            if sent.is_err() {
                // Says why, if the exchange does not know already: the body is not what its head says.
                exchange.fail(Reason::ClientReset);
            }
        })
    }

    /// The head of the response; interim ones are read past.
    ///
    /// # Errors
    /// If the connection ends before it, or what comes is no response.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<response::Parts, LegBroken>> {
        self.leg.poll_head(cx)
    }

    /// Sends a request without a body, and waits for the head of its response.
    ///
    /// # Errors
    /// If none comes.
    pub(super) async fn ask(
        &mut self,
        request: &Outbound,
        endpoint: &Endpoint,
    ) -> Result<response::Parts, LegBroken> {
        self.begin(request, endpoint, false)?;
        poll_fn(|cx| {
            // There is no body that could break off, and an endpoint that takes no more may have answered.
            let _sent = self.leg.poll_send(cx, |_| Poll::Ready(Ok(Piece::End(None))));
            self.leg.poll_head(cx)
        })
        .await
    }

    /// Whether a byte of the request was written, and of the response read.
    pub(super) fn moved(&self) -> (bool, bool) {
        self.leg.moved()
    }

    /// How the body of the response with this head, surveyed, is read, to the request with this method.
    ///
    /// # Errors
    /// If readers may differ over where it ends.
    pub(super) fn body(
        &mut self,
        method: &http::Method,
        head: &response::Parts,
        survey: &Survey,
    ) -> Result<BodyReader, Malformed> {
        let framing = Framing::of_response(method, head, survey)?;
        self.persistent = framing != Framing::UntilClose && is_persistent(head, survey);
        Ok(BodyReader::new(framing))
    }

    /// The next piece of the response's body.
    ///
    /// # Errors
    /// How it broke off.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut BodyReader,
    ) -> Poll<Result<Piece, Reason>> {
        self.leg.poll_body(cx, body).map_err(|broken| broken.reason())
    }

    /// Whether all of the request was written.
    pub(crate) fn is_sent(&self) -> bool {
        self.leg.is_sent()
    }

    /// Whether it can carry another request, as far as the worker has been told.
    pub(super) fn is_reusable(&self) -> bool {
        self.persistent && self.leg.is_quiet()
    }

    /// Whether it is still open as far as the kernel knows, which may be more. One system call.
    pub(super) fn is_quiet_to_the_kernel(&self) -> bool {
        self.leg.is_quiet_to_the_kernel()
    }

    /// Nothing is expected of it for now.
    pub(super) fn rest(&mut self) {
        self.leg.rest();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.metrics.upstream_closed.one();
    }
}
