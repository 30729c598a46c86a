//! From text to [`Raw`], macros written out.

mod lex;

use lex::{Lexer, Token};

use super::raw::{Literal, Raw, RawFold};
use super::resolve::CompileError;

/// Brackets and operators may nest so deep.
const DEPTH: usize = 64;

/// Longer expressions are not read.
const LENGTH: usize = 16 * 1024;

/// The name of a fold's result; no expression can write it.
const ACCUMULATOR: &str = "@result";

pub(super) fn parse(text: &str) -> Result<Raw, CompileError> {
    if text.len() > LENGTH {
        return Err(CompileError::new(format!("an expression may have {LENGTH} bytes")));
    }
    let tokens = Lexer::new(text).all()?;
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let expr = parser.expr()?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => Err(CompileError::new(format!("{other} is not expected here"))),
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn eat(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Token::Symbol(found) if *found == symbol);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<(), CompileError> {
        if self.eat(symbol) {
            return Ok(());
        }
        Err(CompileError::new(format!("{symbol:?} is expected, not {}", self.peek())))
    }

    fn deeper<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, CompileError>,
    ) -> Result<T, CompileError> {
        if self.depth >= DEPTH {
            return Err(CompileError::new(format!("it nests deeper than {DEPTH}")));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn expr(&mut self) -> Result<Raw, CompileError> {
        self.deeper(|parser| {
            let condition = parser.binary(0)?;
            if !parser.eat("?") {
                return Ok(condition);
            }
            let yes = parser.binary(0)?;
            parser.expect(":")?;
            let no = parser.expr()?;
            Ok(Raw::call("_?_:_", vec![condition, yes, no]))
        })
    }

    /// Operators by how strongly they bind.
    fn binary(&mut self, level: usize) -> Result<Raw, CompileError> {
        const LEVELS: [&[(&str, &str)]; 5] = [
            &[("||", "_||_")],
            &[("&&", "_&&_")],
            &[
                ("<=", "_<=_"),
                (">=", "_>=_"),
                ("==", "_==_"),
                ("!=", "_!=_"),
                ("<", "_<_"),
                (">", "_>_"),
                ("in", "@in"),
            ],
            &[("+", "_+_"), ("-", "_-_")],
            &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
        ];
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        let mut links = 0;
        while let Some((_, function)) = operators.iter().find(|(symbol, _)| self.eat(symbol)) {
            let right = self.binary(level + 1)?;
            left = Raw::call(function, vec![left, right]);
            links += 1;
            // A long chain is a deep tree, which is walked by recursion.
            if links > 4 * DEPTH {
                return Err(CompileError::new("a chain of operators is too long"));
            }
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Raw, CompileError> {
        if self.eat("!") {
            let of = self.deeper(Self::unary)?;
            return Ok(Raw::call("!_", vec![of]));
        }
        if self.eat("-") {
            if let Token::Literal(Literal::Uint(_)) = self.peek() {
                return Err(CompileError::new("an unsigned number has no sign"));
            }
            let of = self.deeper(Self::unary)?;
            return Ok(match of {
                Raw::Literal(Literal::Int(value)) => Raw::int(value.wrapping_neg()),
                Raw::Literal(Literal::Double(value)) => Raw::Literal(Literal::Double(-value)),
                of => Raw::call("-_", vec![of]),
            });
        }
        self.member()
    }

    fn member(&mut self) -> Result<Raw, CompileError> {
        let mut expr = self.primary()?;
        let mut links = 0;
        loop {
            links += 1;
            if links > DEPTH {
                return Err(CompileError::new(format!("a chain of fields is longer than {DEPTH}")));
            }
            if self.eat(".") {
                let Token::Ident(name) = self.next() else {
                    return Err(CompileError::new("a name is expected behind a dot"));
                };
                expr = if self.eat("(") {
                    let arguments = self.list(")")?;
                    method(expr, &name, arguments)?
                } else {
                    Raw::Select { operand: Box::new(expr), field: name, test: false }
                };
            } else if self.eat("[") {
                let index = self.expr()?;
                self.expect("]")?;
                expr = Raw::call("_[_]", vec![expr, index]);
            } else {
                return Ok(expr);
            }
        }
    }

    fn primary(&mut self) -> Result<Raw, CompileError> {
        if self.eat("(") {
            let expr = self.expr()?;
            self.expect(")")?;
            return Ok(expr);
        }
        if self.eat("[") {
            return Ok(Raw::List(self.list("]")?));
        }
        if self.eat("{") {
            return self.map();
        }
        // A leading dot names something at the top, where everything is.
        self.eat(".");
        match self.next() {
            Token::Literal(value) => Ok(Raw::Literal(value)),
            Token::Ident(name) => {
                if !self.eat("(") {
                    return Ok(Raw::Ident(name));
                }
                let arguments = self.list(")")?;
                function(&name, arguments)
            }
            other => Err(CompileError::new(format!("{other} is not expected here"))),
        }
    }

    fn list(&mut self, end: &str) -> Result<Vec<Raw>, CompileError> {
        let mut items = Vec::new();
        while !self.eat(end) {
            items.push(self.expr()?);
            if !self.eat(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(items)
    }

    fn map(&mut self) -> Result<Raw, CompileError> {
        let mut entries = Vec::new();
        while !self.eat("}") {
            let key = self.expr()?;
            self.expect(":")?;
            entries.push((key, self.expr()?));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Raw::Map(entries))
    }
}

/// `has(a.b)` is a macro; everything else is a function.
fn function(name: &str, arguments: Vec<Raw>) -> Result<Raw, CompileError> {
    if name != "has" {
        return Ok(Raw::call(name, arguments));
    }
    match <[Raw; 1]>::try_from(arguments) {
        Ok([Raw::Select { operand, field, test: false }]) => Ok(Raw::Select { operand, field, test: true }),
        _ => Err(CompileError::new("has() takes one field")),
    }
}

/// The macros over lists; everything else is a function.
fn method(target: Raw, name: &str, arguments: Vec<Raw>) -> Result<Raw, CompileError> {
    let count = arguments.len();
    let is_macro = matches!(
        (name, count),
        ("all" | "exists" | "exists_one" | "existsOne" | "filter", 2) | ("map", 2 | 3)
    );
    if !is_macro {
        return Ok(Raw::Call { target: Some(Box::new(target)), function: name.into(), arguments });
    }
    let mut arguments = arguments.into_iter();
    let Some(Raw::Ident(variable)) = arguments.next() else {
        return Err(CompileError::new(format!("{name}() takes a name first")));
    };
    let mut next = || arguments.next().unwrap_or(Raw::bool(true));
    let result = || Raw::ident(ACCUMULATOR);
    let proceed = |condition| Raw::call("@not_strictly_false", vec![condition]);
    let append = |item| Raw::call("_+_", vec![result(), Raw::List(vec![item])]);
    let choose = |condition, yes| Raw::call("_?_:_", vec![condition, yes, result()]);
    let (init, condition, step, end) = match (name, count) {
        ("all", _) => {
            let step = Raw::call("_&&_", vec![result(), next()]);
            (Raw::bool(true), proceed(result()), step, result())
        }
        ("exists", _) => {
            let step = Raw::call("_||_", vec![result(), next()]);
            let none_yet = proceed(Raw::call("!_", vec![result()]));
            (Raw::bool(false), none_yet, step, result())
        }
        ("exists_one" | "existsOne", _) => {
            let step = choose(next(), Raw::call("_+_", vec![result(), Raw::int(1)]));
            let end = Raw::call("_==_", vec![result(), Raw::int(1)]);
            (Raw::int(0), Raw::bool(true), step, end)
        }
        ("filter", _) => {
            let step = choose(next(), append(Raw::Ident(variable.clone())));
            (Raw::List(Vec::new()), Raw::bool(true), step, result())
        }
        (_, 3) => {
            let condition = next();
            (Raw::List(Vec::new()), Raw::bool(true), choose(condition, append(next())), result())
        }
        _ => (Raw::List(Vec::new()), Raw::bool(true), append(next()), result()),
    };
    Ok(Raw::Fold(Box::new(RawFold {
        variable,
        range: target,
        accumulator: ACCUMULATOR.into(),
        init,
        condition,
        step,
        result: end,
    })))
}
