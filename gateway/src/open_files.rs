//! The limit of open files, which is the real limit of connections.

/// Descriptors that are kept for everything but clients and endpoints: sockets, pages, the API server, logs.
const RESERVED: u64 = 256;

/// Raises the limit of open files as far as it goes, and says how many client connections fit below it: each may need a
/// connection to an endpoint as well.
pub(crate) fn client_connections(wanted: usize) -> usize {
    let limit = match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(limit) => limit,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be read; max-connections is taken as it is");
            return wanted;
        }
    };
    let fitting = fitting(limit);
    if fitting < wanted {
        tracing::warn!(
            open_files = limit,
            wanted,
            fitting,
            "max-connections is lowered to what the limit of open files allows; raise that limit to serve more clients"
        );
    }
    wanted.min(fitting)
}

fn fitting(limit: u64) -> usize {
    let free = limit.saturating_sub(RESERVED.min(limit / 2));
    usize::try_from(free / 2).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_may_need_two_descriptors_and_the_rest_of_the_process_some() {
        assert_eq!(fitting(1024), 384);
        assert_eq!(fitting(64), 16);
        assert_eq!(fitting(1_048_576), 524_160);
    }
}
