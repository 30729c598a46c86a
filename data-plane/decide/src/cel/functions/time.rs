//! Moments and spans of time, in nanoseconds. Calendars are those of UTC.

use super::super::Value;
use super::super::eval::{EvalError, Result};

const SECOND: i128 = 1_000_000_000;
const DAY: i128 = 86_400 * SECOND;

/// Years 1 to 9999, as protobuf has them.
const EARLIEST: i128 = -62_135_596_800 * SECOND;
const LATEST: i128 = 253_402_300_800 * SECOND;

/// A part of a moment or span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cel) enum Field {
    FullYear,
    Month,
    DayOfMonth,
    Date,
    DayOfWeek,
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

impl Field {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "getFullYear" => Self::FullYear,
            "getMonth" => Self::Month,
            "getDayOfMonth" => Self::DayOfMonth,
            "getDate" => Self::Date,
            "getDayOfWeek" => Self::DayOfWeek,
            "getDayOfYear" => Self::DayOfYear,
            "getHours" => Self::Hours,
            "getMinutes" => Self::Minutes,
            "getSeconds" => Self::Seconds,
            "getMilliseconds" => Self::Milliseconds,
            _ => return None,
        })
    }
}

pub(super) fn field<'a>(field: Field, of: &Value<'_>) -> Result<'a> {
    let value = match (of, field) {
        (Value::Duration(nanos), Field::Hours) => nanos / (3600 * SECOND),
        (Value::Duration(nanos), Field::Minutes) => nanos / (60 * SECOND),
        (Value::Duration(nanos), Field::Seconds) => nanos / SECOND,
        (Value::Duration(nanos), Field::Milliseconds) => nanos / 1_000_000 % 1_000,
        (Value::Timestamp(nanos), field) => {
            let days = nanos.div_euclid(DAY);
            let rest = nanos.rem_euclid(DAY);
            let (year, month, day) = date(days);
            match field {
                Field::FullYear => year,
                Field::Month => month - 1,
                Field::DayOfMonth => day - 1,
                Field::Date => day,
                // The first of January 1970 was a Thursday.
                Field::DayOfWeek => (days + 4).rem_euclid(7),
                Field::DayOfYear => days - days_before(year, 1, 1),
                Field::Hours => rest / (3600 * SECOND),
                Field::Minutes => rest / (60 * SECOND) % 60,
                Field::Seconds => rest / SECOND % 60,
                Field::Milliseconds => rest / 1_000_000 % 1_000,
            }
        }
        (other, _) => return Err(EvalError::Type("a part of a time", other.type_name())),
    };
    Ok(Value::Int(i64::try_from(value).map_err(|_| EvalError::Value("out of range"))?))
}

pub(super) fn add<'a>(left: &Value<'_>, right: &Value<'_>) -> Result<'a> {
    match (left, right) {
        (Value::Timestamp(at), Value::Duration(by)) | (Value::Duration(by), Value::Timestamp(at)) => {
            moment(at + by)
        }
        (Value::Duration(left), Value::Duration(right)) => span(left + right),
        (left, _) => Err(EvalError::Type("+", left.type_name())),
    }
}

pub(super) fn subtract<'a>(left: &Value<'_>, right: &Value<'_>) -> Result<'a> {
    match (left, right) {
        (Value::Timestamp(at), Value::Duration(by)) => moment(at - by),
        (Value::Timestamp(left), Value::Timestamp(right))
        | (Value::Duration(left), Value::Duration(right)) => span(left - right),
        (left, _) => Err(EvalError::Type("-", left.type_name())),
    }
}

fn moment<'a>(nanos: i128) -> Result<'a> {
    let known = (EARLIEST..LATEST).contains(&nanos);
    if known { Ok(Value::Timestamp(nanos)) } else { Err(EvalError::Value("out of range")) }
}

fn span<'a>(nanos: i128) -> Result<'a> {
    let known = (-(LATEST - EARLIEST)..=LATEST - EARLIEST).contains(&nanos);
    if known { Ok(Value::Duration(nanos)) } else { Err(EvalError::Value("out of range")) }
}

/// `1h30m`, `1.5s`, `-3ms`
pub(super) fn parse_duration(text: &str) -> Option<i128> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() || rest.len() > 64 {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale: i128 = match unit {
            "h" => 3600 * SECOND,
            "m" => 60 * SECOND,
            "s" => SECOND,
            "ms" => 1_000_000,
            "us" | "µs" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total += i128::from(whole) * scale;
        let mut part = scale;
        for digit in fraction.bytes() {
            part /= 10;
            total += i128::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?) * part;
        }
        rest = after;
    }
    let total = if negative { -total } else { total };
    ((LATEST - EARLIEST) >= total.abs()).then_some(total)
}

/// RFC 3339.
pub(super) fn parse_timestamp(text: &str) -> Option<i128> {
    let number = |range: std::ops::Range<usize>, low: i128, high: i128| {
        let digits = text.get(range).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse::<i128>().ok().filter(|value| (low..=high).contains(value))
    };
    let at = |place: usize, wanted: &[u8]| text.as_bytes().get(place).is_some_and(|b| wanted.contains(b));
    if !(at(4, b"-") && at(7, b"-") && at(10, b"Tt ") && at(13, b":") && at(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0..4, 1, 9999)?, number(5..7, 1, 12)?, number(8..10, 1, 31)?);
    let (hour, minute, second) = (number(11..13, 0, 23)?, number(14..16, 0, 59)?, number(17..19, 0, 60)?);
    let mut rest = text.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let end = fraction.find(|c: char| !c.is_ascii_digit())?;
        let mut part = SECOND;
        for digit in fraction[..end].bytes() {
            part /= 10;
            nanos += i128::from(digit - b'0') * part;
        }
        rest = &fraction[end..];
    }
    let offset = match rest {
        "Z" | "z" => 0,
        _ => {
            let sign = match rest.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, minutes) = rest.get(1..)?.split_once(':')?;
            let hours = hours.parse::<u8>().ok().filter(|hours| *hours < 24)?;
            let minutes = minutes.parse::<u8>().ok().filter(|minutes| *minutes < 60)?;
            sign * (i128::from(hours) * 3600 + i128::from(minutes) * 60)
        }
    };
    let days = days_before(year, month, day);
    Some(days * DAY + (hour * 3600 + minute * 60 + second - offset) * SECOND + nanos)
}

/// Days from 1970 to a date (Howard Hinnant's algorithm).
fn days_before(year: i128, month: i128, day: i128) -> i128 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a day counted from 1970.
fn date(days: i128) -> (i128, i128, i128) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    (year + era * 400 + i128::from(month <= 2), month, day)
}

/// `1.5s`
pub(in crate::cel) fn write_duration(nanos: i128) -> String {
    let (sign, nanos) = if nanos < 0 { ("-", -nanos) } else { ("", nanos) };
    format!("{sign}{}{}s", nanos / SECOND, fraction(nanos % SECOND))
}

/// `2024-02-29T12:00:00Z`
pub(in crate::cel) fn write_timestamp(nanos: i128) -> String {
    let (year, month, day) = date(nanos.div_euclid(DAY));
    let rest = nanos.rem_euclid(DAY);
    let seconds = rest / SECOND;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = fraction(rest % SECOND);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

fn fraction(nanos: i128) -> String {
    if nanos == 0 {
        return String::new();
    }
    let digits = format!("{nanos:09}");
    format!(".{}", digits.trim_end_matches('0'))
}
