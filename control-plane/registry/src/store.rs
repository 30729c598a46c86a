//! Every object that a source has, by key.

use std::collections::{BTreeMap, BTreeSet};

use crate::object::{Key, Object};
use crate::source::Change;

/// The objects. One writer applies changes; what they touched is returned.
#[derive(Debug, Clone, Default)]
pub struct Store {
    objects: BTreeMap<Key, Object>,
}

/// A key whose object was added, changed or removed, with what was there before.
#[derive(Debug, Clone)]
pub struct Touched {
    /// The key.
    pub key: Key,
    /// The object before.
    pub before: Option<Object>,
}

impl Store {
    /// Applies changes together; the result names every object that really differs afterwards, once.
    pub fn apply(&mut self, changes: Vec<Change>) -> Vec<Touched> {
        let mut touched = BTreeMap::new();
        for change in changes {
            match change {
                Change::Upsert(object) => self.put(object, &mut touched),
                Change::Delete(key) => self.remove(key, &mut touched),
                Change::Replace(objects) => self.replace(objects, |_| true, &mut touched),
                Change::ReplaceKind { kind, objects } => {
                    self.replace(objects, |key| key.kind == kind, &mut touched);
                }
            }
        }
        touched
            .into_iter()
            .filter(|(key, before)| self.objects.get(key) != before.as_ref())
            .map(|(key, before)| Touched { key, before })
            .collect()
    }

    /// The object of a key.
    pub fn get(&self, kind: &'static str, namespace: &str, name: &str) -> Option<&Object> {
        self.objects.get(&Key { kind, namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The object of a key.
    pub fn get_key(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key)
    }

    /// All objects of a kind, by namespace and name.
    pub fn of_kind(&self, kind: &'static str) -> impl Iterator<Item = &Object> {
        let first = Key { kind, namespace: String::new(), name: String::new() };
        self.objects.range(first..).take_while(move |(key, _)| key.kind == kind).map(|(_, object)| object)
    }

    /// All objects of a kind in a namespace, by name.
    pub fn in_namespace<'a>(
        &'a self,
        kind: &'static str,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Object> + 'a {
        let first = Key { kind, namespace: namespace.to_owned(), name: String::new() };
        self.objects
            .range(first..)
            .take_while(move |(key, _)| key.kind == kind && key.namespace == namespace)
            .map(|(_, object)| object)
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Object)> {
        self.objects.iter()
    }

    /// Makes `objects` all that there is of those keys that are meant.
    fn replace(
        &mut self,
        objects: Vec<Object>,
        meant: impl Fn(&Key) -> bool,
        touched: &mut BTreeMap<Key, Option<Object>>,
    ) {
        let keep: BTreeSet<Key> = objects.iter().map(Object::key).collect();
        let gone: Vec<Key> =
            self.objects.keys().filter(|key| meant(key) && !keep.contains(*key)).cloned().collect();
        for key in gone {
            self.remove(key, touched);
        }
        for object in objects {
            self.put(object, touched);
        }
    }

    fn put(&mut self, object: Object, touched: &mut BTreeMap<Key, Option<Object>>) {
        let key = object.key();
        if self.objects.get(&key).is_some_and(|before| before.same(&object)) {
            return;
        }
        let before = self.objects.insert(key.clone(), object);
        touched.entry(key).or_insert(before);
    }

    fn remove(&mut self, key: Key, touched: &mut BTreeMap<Key, Option<Object>>) {
        if let Some(before) = self.objects.remove(&key) {
            touched.entry(key).or_insert(Some(before));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str, label: &str) -> Object {
        let text = format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: {{a: '{label}'}}}}}}"
        );
        let manifest = serde_norway::from_str(&text).expect("yaml");
        Object::decode(&manifest).expect("namespace").objects.remove(0)
    }

    #[test]
    fn only_real_changes_are_told() {
        let mut store = Store::default();
        let names = |touched: Vec<Touched>| touched.into_iter().map(|t| t.key.name).collect::<Vec<_>>();
        let all = || vec![namespace("a", "1"), namespace("b", "1")];
        assert_eq!(names(store.apply(vec![Change::Replace(all())])), ["a", "b"]);
        assert!(store.apply(vec![Change::Replace(all())]).is_empty());
        let there_and_back = vec![Change::Upsert(namespace("a", "2")), Change::Upsert(namespace("a", "1"))];
        assert!(store.apply(there_and_back).is_empty());
        assert_eq!(names(store.apply(vec![Change::Replace(vec![namespace("b", "2")])])), ["a", "b"]);
        assert_eq!(store.of_kind("Namespace").count(), 1);
    }
}
