//! The short walk: gateway/tests/e2e on a node of its own.

use anyhow::Result;
use portolan_testbed::is_root;

use super::control_plane::left_out;
use super::counts::{self, Results};
use crate::walk::Ground;

pub(super) fn run(rest: &[String]) -> Result<Results> {
    if !is_root() {
        return left_out("e2e");
    }
    let ground = Ground::prepare()?;
    let results = counts::run(&mut ground.steps(rest)?)?;
    ground.end()?;
    Ok(results)
}
