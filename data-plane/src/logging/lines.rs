//! `--log-format`: spdlog's patterns for the lines of the log.

use std::fmt::Write;

use base::log::Event;
use jiff::Zoned;

/// What Envoy writes where nothing else is asked for.
pub(crate) const DEFAULT: &str = "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v";

/// A pattern, taken apart.
#[derive(Debug)]
pub(crate) struct Lines {
    pieces: Vec<Piece>,
    escaped: bool,
}

#[derive(Debug, PartialEq)]
enum Piece {
    Text(String),
    Flag { flag: Flag, width: usize, align: Align, cut: bool },
}

/// Where a value stands in a field that is wider.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Align {
    Right,
    Left,
    Center,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flag {
    Message,
    EscapedMessage,
    Logger,
    Level,
    ShortLevel,
    Thread,
    Process,
    Source,
    File,
    FullFile,
    Line,
    Function,
    /// Thousandths, millionths or billionths of the second.
    Fraction(usize),
    Epoch,
    /// What `strftime` knows.
    Time(&'static str),
    Nothing,
}

impl Flag {
    fn of(letter: char) -> Option<Self> {
        Some(match letter {
            'v' => Self::Message,
            '_' => Self::EscapedMessage,
            'n' => Self::Logger,
            'l' => Self::Level,
            'L' => Self::ShortLevel,
            't' => Self::Thread,
            'P' => Self::Process,
            '@' => Self::Source,
            's' => Self::File,
            'g' => Self::FullFile,
            '#' => Self::Line,
            '!' => Self::Function,
            'e' => Self::Fraction(3),
            'f' => Self::Fraction(6),
            'F' => Self::Fraction(9),
            'E' => Self::Epoch,
            'a' => Self::Time("%a"),
            'A' => Self::Time("%A"),
            'b' | 'h' => Self::Time("%b"),
            'B' => Self::Time("%B"),
            'c' => Self::Time("%a %b %e %H:%M:%S %Y"),
            'C' => Self::Time("%y"),
            'Y' => Self::Time("%Y"),
            'D' | 'x' => Self::Time("%m/%d/%y"),
            'm' => Self::Time("%m"),
            'd' => Self::Time("%d"),
            'H' => Self::Time("%H"),
            'I' => Self::Time("%I"),
            'M' => Self::Time("%M"),
            'S' => Self::Time("%S"),
            'p' => Self::Time("%p"),
            'r' => Self::Time("%I:%M:%S %p"),
            'R' => Self::Time("%H:%M"),
            'T' | 'X' => Self::Time("%H:%M:%S"),
            'z' => Self::Time("%:z"),
            // Where colours begin and end; lines have none.
            '^' | '$' => Self::Nothing,
            _ => return None,
        })
    }
}

impl Lines {
    /// Reads a pattern.
    pub(crate) fn parse(pattern: &str, escaped: bool) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut letters = pattern.chars().peekable();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                text.push(letter);
                continue;
            }
            let align = match letters.peek() {
                Some('-') => Align::Left,
                Some('=') => Align::Center,
                _ => Align::Right,
            };
            if align != Align::Right {
                letters.next();
            }
            let mut width = 0;
            while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
                width = (width * 10 + digit as usize).min(64);
                letters.next();
            }
            let mut letter = letters.next().ok_or("it ends with %")?;
            let cut = letter == '!' && width > 0;
            if cut {
                letter = letters.next().ok_or("it ends with !")?;
            }
            if letter == '%' {
                text.push('%');
                continue;
            }
            let flag = Flag::of(letter).ok_or_else(|| format!("%{letter} is not a flag"))?;
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(Piece::Flag { flag, width, align, cut });
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok(Self { pieces, escaped })
    }

    /// An event's line, with its end.
    pub(crate) fn write(&self, event: &Event<'_>) -> String {
        let now = Zoned::now();
        let mut line = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => line.push_str(text),
                Piece::Flag { flag, width, align, cut } => {
                    pad(&mut line, &self.value(*flag, event, &now), *width, *align, *cut);
                }
            }
        }
        line.push('\n');
        line
    }

    fn value(&self, flag: Flag, event: &Event<'_>, now: &Zoned) -> String {
        let file = event.file.unwrap_or_default();
        let name = file.rsplit('/').next().unwrap_or(file);
        match flag {
            Flag::Message if self.escaped => escape(event.message),
            Flag::Message => event.message.to_owned(),
            Flag::EscapedMessage => escape(event.message),
            Flag::Logger => super::component(event.target).to_owned(),
            Flag::Level => match event.level {
                "warn" => "warning".to_owned(),
                level => level.to_owned(),
            },
            Flag::ShortLevel => event.level.chars().next().unwrap_or(' ').to_ascii_uppercase().to_string(),
            Flag::Thread => nix::unistd::gettid().to_string(),
            Flag::Process => std::process::id().to_string(),
            Flag::Source => format!("{name}:{}", event.line.unwrap_or(0)),
            Flag::File => name.to_owned(),
            Flag::FullFile => file.to_owned(),
            Flag::Line => event.line.unwrap_or(0).to_string(),
            Flag::Function => event.target.to_owned(),
            Flag::Fraction(digits) => {
                let text = format!("{:09}", now.timestamp().subsec_nanosecond().unsigned_abs());
                text[..digits].to_owned()
            }
            Flag::Epoch => now.timestamp().as_second().to_string(),
            Flag::Time(format) => now.strftime(format).to_string(),
            Flag::Nothing => String::new(),
        }
    }
}

fn pad(line: &mut String, value: &str, width: usize, align: Align, cut: bool) {
    let length = value.chars().count();
    if cut && length > width {
        line.extend(value.chars().take(width));
        return;
    }
    let room = width.saturating_sub(length);
    let before = match align {
        Align::Right => room,
        Align::Left => 0,
        Align::Center => room / 2,
    };
    // A string takes everything.
    let _ = write!(line, "{:before$}{value}{:after$}", "", "", after = room - before);
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(pattern: &str, escaped: bool) -> String {
        let event = Event {
            level: "warn",
            target: "sail_proxy::router::request",
            file: Some("src/router/request.rs"),
            line: Some(7),
            message: "a\nb",
        };
        Lines::parse(pattern, escaped).unwrap().write(&event)
    }

    #[test]
    fn flags_stand_for_what_is_known() {
        assert_eq!(
            line("[%l][%n] [%@] %L %v 100%%", true),
            "[warning][router] [request.rs:7] W a\\nb 100%\n"
        );
        assert_eq!(line("%v|%_", false), "a\nb|a\\nb\n");
        assert_eq!(line("%10l|%-10l|%=10l|%3!l", false), "   warning|warning   | warning  |war\n");
        let time = line("%Y-%m-%d %T.%e", false);
        assert_eq!(time.len(), "2026-01-01 00:00:00.000\n".len());
        assert!(line(DEFAULT, false).ends_with("[warning][router] [src/router/request.rs:7] a\nb\n"));
        assert!(Lines::parse("%v %", false).is_err() && Lines::parse("%q", false).is_err());
    }
}
