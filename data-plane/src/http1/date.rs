//! The `date` of responses, rendered once a second.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

struct Rendered {
    /// Since 1970.
    second: u64,
    text: String,
}

thread_local! {
    static LAST: RefCell<Rendered> = const { RefCell::new(Rendered { second: u64::MAX, text: String::new() }) };
}

/// Calls with the time of now, as RFC 9110 §5.6.7 has it.
pub(super) fn with_now<R>(call: impl FnOnce(&[u8]) -> R) -> R {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|last| {
        if last.second != second {
            let time = UNIX_EPOCH + Duration::from_secs(second);
            *last = Rendered { second, text: HttpDate::from(time).to_string() };
        }
        call(last.text.as_bytes())
    })
}
