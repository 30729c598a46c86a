//! Text to tokens.

use std::fmt;

use crate::cel::raw::Literal;
use crate::cel::resolve::CompileError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Ident(Box<str>),
    Literal(Literal),
    Symbol(&'static str),
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ident(name) => write!(f, "the name {name:?}"),
            Self::Literal(_) => f.write_str("a literal"),
            Self::Symbol(symbol) => write!(f, "{symbol:?}"),
            Self::End => f.write_str("the end"),
        }
    }
}

/// Longer ones first.
const SYMBOLS: [&str; 24] = [
    "||", "&&", "<=", ">=", "==", "!=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", "(", ")", "[", "]",
    "{", "}", ".", ",",
];

pub(super) struct Lexer<'a> {
    rest: &'a str,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    pub(super) fn all(mut self) -> Result<Vec<Token>, CompileError> {
        let mut tokens = Vec::new();
        loop {
            self.skip();
            if self.rest.is_empty() {
                return Ok(tokens);
            }
            tokens.push(self.token()?);
        }
    }

    /// White space and comments.
    fn skip(&mut self) {
        loop {
            self.rest = self.rest.trim_start();
            let Some(comment) = self.rest.strip_prefix("//") else { return };
            self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
        }
    }

    fn token(&mut self) -> Result<Token, CompileError> {
        if let Some(literal) = self.string()? {
            return Ok(Token::Literal(literal));
        }
        let first = self.rest.chars().next().unwrap_or_default();
        let digit_follows = self.rest[first.len_utf8()..].starts_with(|c: char| c.is_ascii_digit());
        if first.is_ascii_digit() || (first == '.' && digit_follows) {
            return self.number().map(Token::Literal);
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
            let (name, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Ok(match name {
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                "in" => Token::Symbol("in"),
                name => Token::Ident(name.into()),
            });
        }
        for symbol in SYMBOLS {
            if let Some(rest) = self.rest.strip_prefix(symbol) {
                self.rest = rest;
                return Ok(Token::Symbol(symbol));
            }
        }
        Err(CompileError::new(format!("{first:?} is not expected here")))
    }

    fn number(&mut self) -> Result<Literal, CompileError> {
        let hex = self.rest.strip_prefix("0x").or_else(|| self.rest.strip_prefix("0X"));
        if let Some(digits) = hex {
            let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
            let value = u64::from_str_radix(&digits[..end], 16);
            self.rest = &digits[end..];
            return self.integer(value.ok());
        }
        let bytes = self.rest.as_bytes();
        let digits = |from: usize| from + bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let mut end = digits(0);
        let mut float = false;
        if bytes.get(end) == Some(&b'.') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit) {
            float = true;
            end = digits(end + 1);
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            if bytes.get(end + 1 + sign).is_some_and(u8::is_ascii_digit) {
                float = true;
                end = digits(end + 1 + sign);
            }
        }
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest;
        if float {
            let value = text.parse().map_err(|_| CompileError::new(format!("{text} is no number")))?;
            return Ok(Literal::Double(value));
        }
        self.integer(text.parse().ok())
    }

    fn integer(&mut self, value: Option<u64>) -> Result<Literal, CompileError> {
        let problem = || CompileError::new("a number is too large");
        let value = value.ok_or_else(problem)?;
        if let Some(rest) = self.rest.strip_prefix(['u', 'U']) {
            self.rest = rest;
            return Ok(Literal::Uint(value));
        }
        // -2^63 is written as a minus sign and 2^63, which wraps to what is meant.
        if value == 1 << 63 {
            return Ok(Literal::Int(i64::MIN));
        }
        i64::try_from(value).map(Literal::Int).map_err(|_| problem())
    }

    /// A string with its prefixes, if there is one.
    fn string(&mut self) -> Result<Option<Literal>, CompileError> {
        let (mut raw, mut bytes, mut rest) = (false, false, self.rest);
        loop {
            if let Some(after) = rest.strip_prefix(['r', 'R']).filter(|_| !raw) {
                (raw, rest) = (true, after);
            } else if let Some(after) = rest.strip_prefix(['b', 'B']).filter(|_| !bytes) {
                (bytes, rest) = (true, after);
            } else {
                break;
            }
        }
        let quotes = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quotes| rest.starts_with(quotes));
        let Some(quotes) = quotes else { return Ok(None) };
        rest = &rest[quotes.len()..];
        let mut value = Vec::new();
        loop {
            if let Some(after) = rest.strip_prefix(quotes) {
                self.rest = after;
                break;
            }
            let Some(c) = rest.chars().next() else {
                return Err(CompileError::new("a string has no end"));
            };
            if c == '\\' && !raw {
                rest = escape(&rest[1..], bytes, &mut value)?;
                continue;
            }
            if quotes.len() == 1 && matches!(c, '\n' | '\r') {
                return Err(CompileError::new("a string has no end on its line"));
            }
            let (text, after) = rest.split_at(c.len_utf8());
            value.extend_from_slice(text.as_bytes());
            rest = after;
        }
        if bytes {
            return Ok(Some(Literal::Bytes(value.into())));
        }
        let text = String::from_utf8(value).map_err(|_| CompileError::new("a string is not UTF-8"))?;
        Ok(Some(Literal::String(text.into())))
    }
}

/// What follows a backslash; gives what follows that.
fn escape<'a>(rest: &'a str, bytes: bool, out: &mut Vec<u8>) -> Result<&'a str, CompileError> {
    let bad = || CompileError::new("an escape sequence is not known");
    let first = rest.chars().next().ok_or_else(bad)?;
    let plain = match first {
        'a' => Some(7),
        'b' => Some(8),
        'f' => Some(12),
        'n' => Some(b'\n'),
        'r' => Some(b'\r'),
        't' => Some(b'\t'),
        'v' => Some(11),
        '\\' | '?' | '"' | '\'' | '`' => u8::try_from(first).ok(),
        _ => None,
    };
    if let Some(plain) = plain {
        out.push(plain);
        return Ok(&rest[1..]);
    }
    let (skip, length, radix) = match first {
        'x' | 'X' => (1, 2, 16),
        'u' => (1, 4, 16),
        'U' => (1, 8, 16),
        '0'..='3' => (0, 3, 8),
        _ => return Err(bad()),
    };
    let digits = rest.get(skip..skip + length).ok_or_else(bad)?;
    let code = u32::from_str_radix(digits, radix).map_err(|_| bad())?;
    if bytes && length < 4 {
        out.push(u8::try_from(code).map_err(|_| bad())?);
    } else {
        let c = char::from_u32(code).ok_or_else(bad)?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(&rest[skip + length..])
}
