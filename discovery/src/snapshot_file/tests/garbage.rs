//! Files that were not written so, or not for this start.

use proptest::prelude::*;

use super::*;

fn refusal(path: &Path, max_age: Duration) -> String {
    read(path, &origin(), max_age).expect_err("it is refused").to_string()
}

/// The bytes with the right sum at their end: whatever else is wrong is found behind the sum.
fn summed(bytes: &[u8]) -> Vec<u8> {
    let end = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap();
    let mut bytes = bytes[..=end].to_vec();
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes);
    let parts = bytes.iter().filter(|byte| **byte == b'\n').count() - 1;
    bytes.extend(format!("{{\"parts\":{parts},\"crc32\":\"{:08x}\"}}\n", crc.finalize()).bytes());
    bytes
}

#[test]
fn what_must_not_be_used_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let now = Timestamp::now();
    let whole = bytes(&snapshot(2, 2), now);
    let whole = std::str::from_utf8(&whole).unwrap();
    let long_ago = String::from_utf8(bytes(&snapshot(1, 1), now - SignedDuration::from_mins(61))).unwrap();
    let ahead = String::from_utf8(bytes(&snapshot(1, 1), now + SignedDuration::from_mins(6))).unwrap();
    let twice = whole.lines().flat_map(|line| [line, line]).skip(1).collect::<Vec<_>>().join("\n") + "\n";
    let again = |text: &str| String::from_utf8(summed(text.as_bytes())).unwrap();
    let table = [
        (String::new(), "its first line is not that of a snapshot"),
        ("\n".to_owned(), "its first line is not that of a snapshot"),
        ("kind: Service\n".to_owned(), "its first line is not that of a snapshot"),
        (
            whole.replace("\"portolan-snapshot\":1", "\"portolan-snapshot\":2"),
            "it has format 2, and this version reads format 1",
        ),
        (whole[..whole.len() / 2].to_owned(), "garbled"),
        (whole[..whole.len() - 1].to_owned(), "its end is missing"),
        (whole.replace("8080", "8081"), "its checksum is wrong"),
        (again(&whole.replace("\"ready\"", "\"lively\"")), "a part cannot be read: unknown variant `lively`"),
        (again(&whole.replace("*.shop", "*.*.shop")), "is not a host name"),
        (
            again(&whole.replace("10.0.0.0:", "10.0.0.9:")),
            "the endpoints of shop/service-0:80 are not in order",
        ),
        (again(&twice.replacen("\"crc32\"", "\"crc\"", 1)), "garbled"),
        (long_ago, "right 3660s ago, and at most 3600s are allowed"),
        (ahead, "has not come yet. Correct the clock"),
        (again(&whole.replace("\"annotated\"", "\"all\"")), "expose was \"all\" and is \"annotated\""),
    ];
    for (text, expected) in table {
        std::fs::write(&path, text).unwrap();
        let said = refusal(&path, HOUR);
        assert!(said.contains(expected), "{said:?} should say {expected:?}");
    }
    std::fs::write(&path, whole).unwrap();
    assert!(refusal(&path, Duration::ZERO).contains("at most 0ns are allowed"));
    assert!(read(&path, &origin(), HOUR).unwrap().is_some(), "the same file is used if nothing is wrong");
    assert!(refusal(folder.path(), HOUR).contains("not an ordinary file"));
    let huge = std::fs::File::create(&path).unwrap();
    huge.set_len(MAX_BYTES + 1).unwrap();
    assert!(refusal(&path, HOUR).contains("more than 100 MiB"));
}

#[test]
fn what_would_be_too_large_to_read_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    write(&path, &snapshot(1, 1), Timestamp::now(), &origin()).unwrap();
    let mut huge = snapshot(1, 1);
    let (id, route) = huge.routes.get_max().cloned().unwrap();
    let mut route = (*route).clone();
    route.rules[0].filters = vec![Filter::RewriteHost("x".repeat(MAX_BYTES as usize))];
    huge.routes.insert(id, Arc::new(route));
    let error = write(&path, &huge, Timestamp::now(), &origin()).unwrap_err().to_string();
    assert!(error.contains("more than 100 MiB"), "{error}");
    assert!(read(&path, &origin(), HOUR).unwrap().is_some(), "the one before stays");
    assert!(!beside(&path).unwrap().exists(), "nothing else stays");
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing/snapshot");
    let error = write(&path, &snapshot(1, 1), Timestamp::now(), &origin()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(read(&path, &origin(), HOUR).unwrap().is_none());
}

proptest! {
    /// Cut, flipped, doubled: refused, or (behind a sum made right again) perhaps read, but never a panic.
    #[test]
    fn a_mutated_file_is_refused_and_never_a_panic(
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
        length in 0..40_usize,
        how in 0..4,
    ) {
        let mut bytes = bytes(&snapshot(2, 2), Timestamp::UNIX_EPOCH);
        let whole = bytes.clone();
        let at = at.index(bytes.len());
        let end = (at + length).min(bytes.len());
        match how {
            0 => bytes[at] = with,
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..end)),
            _ => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
        if bytes != whole {
            // What is changed in the last line alone (a blank) may say the same.
            let same = |picture: LastPicture| picture == decoded(&whole).unwrap();
            prop_assert!(decoded(&bytes).map_or(true, same));
            if bytes.len() > 1 && bytes[..bytes.len() - 1].contains(&b'\n') {
                drop(decoded(&summed(&bytes)));
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decoded(&bytes).is_err());
    }
}
