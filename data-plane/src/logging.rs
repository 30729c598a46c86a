//! Envoy's log levels and components, as filters of our log.

pub(crate) mod lines;

use crate::cli::LogLevel;

/// Envoy's components and the module that does their work here. A component without one has no lines to filter.
const COMPONENTS: [(&str, &str); 25] = [
    ("admin", "sail_proxy::admin"),
    ("client", "sail_proxy::pool"),
    ("config", "sail_proxy::xds"),
    ("connection", "sail_proxy::tcp"),
    ("conn_handler", "sail_proxy::listener"),
    ("dns", "sail_proxy::dns"),
    ("ext_authz", "sail_proxy::filters::ext_authz"),
    ("file", "sail_proxy::access_log"),
    ("filter", "sail_proxy::filters"),
    ("grpc", "tonic"),
    ("h2", "h2"),
    ("hc", "sail_proxy::health"),
    ("health_checker", "sail_proxy::health"),
    ("http", "sail_proxy::http"),
    ("http2", "h2"),
    ("init", "sail_proxy::server"),
    ("jwt", "sail_proxy::filters::jwt_authn"),
    ("lua", "sail_proxy::filters::lua"),
    ("main", "sail_proxy::server"),
    ("misc", "hyper"),
    ("pool", "sail_proxy::pool"),
    ("rbac", "sail_proxy::filters::rbac"),
    ("router", "sail_proxy::router"),
    ("tracing", "sail_proxy::trace"),
    ("upstream", "sail_proxy::upstream"),
];

/// Envoy's component whose lines a module writes; `misc` where none is nearer.
fn component(module: &str) -> &'static str {
    let owns = |prefix: &str| {
        module.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let nearest = COMPONENTS.iter().filter(|(_, prefix)| owns(prefix)).max_by_key(|(_, prefix)| prefix.len());
    nearest.map_or("misc", |(name, _)| name)
}

/// The level of everything and the levels of components, changeable while running.
#[derive(Clone, Debug)]
pub struct Levels {
    all: LogLevel,
    components: Vec<(String, LogLevel)>,
}

/// A level or component that does not exist.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Not a level.
    #[error("log level {0:?} is none of trace, debug, info, warning, error, critical, off")]
    Level(String),
    /// Not of the form `component:level`.
    #[error("component log level {0:?} is not of the form component:level")]
    Pair(String),
}

impl Levels {
    /// From the command line.
    pub fn new(all: LogLevel, components: &str) -> Result<Self, Error> {
        let mut levels = Self { all, components: Vec::new() };
        for pair in components.split(',').filter(|pair| !pair.is_empty()) {
            let (component, level) = pair.split_once(':').ok_or_else(|| Error::Pair(pair.to_owned()))?;
            levels.set(component, level)?;
        }
        Ok(levels)
    }

    /// Sets every level, as `/logging?level=` does.
    pub fn set_all(&mut self, level: &str) -> Result<(), Error> {
        self.all = LogLevel::parse(level).ok_or_else(|| Error::Level(level.to_owned()))?;
        self.components.clear();
        Ok(())
    }

    /// Sets a component's level.
    pub fn set(&mut self, component: &str, level: &str) -> Result<(), Error> {
        let level = LogLevel::parse(level).ok_or_else(|| Error::Level(level.to_owned()))?;
        self.components.retain(|(name, _)| name != component);
        self.components.push((component.to_owned(), level));
        Ok(())
    }

    /// As a filter of the log.
    pub fn filter(&self) -> String {
        let mut filter = self.all.filter().to_owned();
        for (component, level) in &self.components {
            for (_, module) in COMPONENTS.iter().filter(|(name, _)| name == component) {
                filter.push_str(&format!(",{module}={}", level.filter()));
            }
        }
        filter
    }

    /// Every component and its level, for `/logging`.
    pub fn list(&self) -> Vec<(&str, LogLevel)> {
        let mut names: Vec<&str> = COMPONENTS.iter().map(|(name, _)| *name).collect();
        names.extend(self.components.iter().map(|(name, _)| name.as_str()));
        names.sort_unstable();
        names.dedup();
        let level =
            |name: &str| self.components.iter().find(|(n, _)| n == name).map_or(self.all, |(_, l)| *l);
        names.into_iter().map(|name| (name, level(name))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_become_modules() {
        let levels = Levels::new(LogLevel::Warning, "misc:error,upstream:debug").unwrap();
        assert_eq!(levels.filter(), "warn,hyper=error,sail_proxy::upstream=debug");
        assert_eq!(Levels::new(LogLevel::Info, "x").unwrap_err(), Error::Pair("x".to_owned()));
        assert_eq!(Levels::new(LogLevel::Info, "x:loud").unwrap_err(), Error::Level("loud".to_owned()));
    }
}
