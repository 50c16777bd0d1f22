//! Kubernetes' quantities, as whole bytes.

/// A text is not a quantity of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a quantity of bytes: {why}")]
pub struct QuantityError {
    text: String,
    why: &'static str,
}

/// Parses a quantity exactly: digits with an optional fraction, then a binary unit (`Ki` to `Ei`), a decimal one (`m`, `k`,
/// `M` to `E`), an exponent (`e3`), or nothing. What is not a whole number of bytes is rounded up, as Kubernetes does. Zero
/// is an error: it would limit something to nothing.
pub(in crate::washlet) fn bytes(text: &str) -> Result<u64, QuantityError> {
    let error = |why| QuantityError {
        text: text.to_owned(),
        why,
    };
    let malformed = || error("write it as `64Mi`, `1Gi` or `67108864`");
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end).ok_or_else(malformed)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if text.starts_with('-') {
        return Err(error("it is negative; write a size above zero"));
    }
    if whole.len() + fraction.len() == 0 || fraction.contains('.') {
        return Err(malformed());
    }
    let (factor, power) = unit_factor(unit).ok_or_else(malformed)?;
    let too_large = || error("it is more than there can be");
    let digits: u128 = format!("{whole}{fraction}")
        .parse()
        .map_err(|_| too_large())?;
    let power = power - i32::try_from(fraction.len()).map_err(|_| too_large())?;
    let ten = |power: i32| 10_u128.checked_pow(power.unsigned_abs());
    let scaled = digits.checked_mul(factor).ok_or_else(too_large)?;
    let bytes = if power >= 0 {
        ten(power)
            .and_then(|ten| scaled.checked_mul(ten))
            .ok_or_else(too_large)?
    } else {
        // A divisor beyond 10^38 leaves less than one byte.
        ten(power).map_or(1, |ten| scaled.div_ceil(ten))
    };
    match u64::try_from(bytes) {
        Ok(0) => Err(error("it is nothing; write a size above zero")),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(too_large()),
    }
}

/// What a unit multiplies by: a factor, and a power of ten.
fn unit_factor(unit: &str) -> Option<(u128, i32)> {
    Some(match unit {
        "" => (1, 0),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            (1, (-64..=64).contains(&power).then_some(power)?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_exact() {
        let cases = [
            ("67108864", 67_108_864),
            ("64Mi", 67_108_864),
            ("1Ki", 1024),
            ("1k", 1000),
            ("1.5Gi", 1_610_612_736),
            ("0.1Ki", 103),
            ("2e3", 2000),
            ("2E", 2_000_000_000_000_000_000),
            ("1E3", 1000),
            ("1500m", 2),
            ("1m", 1),
            (".5k", 500),
            ("5.k", 5000),
            ("100e-2", 1),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_says_why() {
        for text in [
            "", "Mi", ".", "1.2.3", "64MB", "64 Mi", "1e", "1e999", "٣", "0x10",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert!(bytes("-1Mi").unwrap_err().to_string().contains("negative"));
        assert!(bytes("0").unwrap_err().to_string().contains("nothing"));
        for text in ["16Ei", "99999999999999999999999999999999999999999", "1e30"] {
            assert!(
                bytes(text).unwrap_err().to_string().contains("more than"),
                "{text}"
            );
        }
    }
}
