//! Amounts as people write them.

use anyhow::{Context, bail};

/// A share: `20%` or `0.2`.
///
/// # Errors
/// If it is no number, or not between nothing and everything.
pub fn share(text: &str) -> anyhow::Result<f64> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share =
        number.trim().parse::<f64>().with_context(|| format!("{text:?} is not a share such as 20%"))? / scale;
    if !(0.0..=1.0).contains(&share) {
        bail!("{text:?} is not between 0% and 100%");
    }
    Ok(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percents_or_fractions() {
        for (text, expected) in [("20%", 0.2), ("0.2", 0.2), ("100%", 1.0), ("0", 0.0), ("0.5 %", 0.005)] {
            assert_eq!(share(text).unwrap(), expected, "{text}");
        }
        for text in ["", "%", "101%", "-1%", "20", "NaN"] {
            assert!(share(text).is_err(), "{text}");
        }
    }
}
