//! What a call says of itself besides its messages.

use std::{sync::Arc, time::Duration};

use axum::{extract::Request, http::HeaderMap};

use crate::{
    call::Call,
    http::access,
    service::{Failure, Kind},
};

/// What the service needs to know of a call, with the deadline that `grpc-timeout` sets.
pub(super) fn call(request: &Request) -> Result<Call, Failure> {
    let timeout = match request.headers().get("grpc-timeout") {
        None => None,
        Some(value) => Some(value.to_str().ok().and_then(timeout).ok_or_else(|| {
            let message = "`grpc-timeout` must be at most 8 digits and one of the units H, M, S, m, u and n";
            Failure::new(Kind::Invalid, message.into())
        })?),
    };
    Ok(access::call(request)?.within(timeout))
}

/// The model that `model` names.
pub(super) fn model(metadata: &HeaderMap) -> Option<Arc<str>> {
    metadata.get("model")?.to_str().ok().filter(|name| !name.is_empty()).map(Arc::from)
}

/// A time as gRPC writes it.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_a_unit_and_few_digits() {
        assert_eq!(timeout("100m"), Some(Duration::from_millis(100)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(timeout("0n"), Some(Duration::ZERO));
        for broken in ["", "m", "100", "1.5S", "-1S", "+1S", "123456789S", "1s", "1 S", "٣S", "1é"] {
            assert_eq!(timeout(broken), None, "{broken}");
        }
    }
}
