//! Which names a restore is about, and what becomes of those that are there.

use std::collections::BTreeSet;

use backup_core::{Error, ErrorKind, Occupancy, RestoreOptions, Result};
use serde_json::{Map, Value, json};

use crate::names::{Patterns, Rename};
use crate::options::{Aliases, Conflict, Restoring};
use crate::requests::What;
use crate::schema::Names;

impl Restoring {
    /// What the caller asks for beyond what the target says.
    pub(crate) fn with(&self, options: &RestoreOptions, kind: &str) -> Result<Self> {
        let mut how = self.clone();
        for (name, value) in &options.extra {
            match name.as_str() {
                "indices" => {
                    how.indices = RestoreOptions::read::<Patterns>(name, value)?.checked()?
                }
                "state" => how.state = RestoreOptions::read::<Patterns>(name, value)?.checked()?,
                "rename" => how.rename = Some(RestoreOptions::read::<Rename>(name, value)?),
                "conflict" => how.conflict = RestoreOptions::read(name, value)?,
                "aliases" => how.aliases = Some(RestoreOptions::read(name, value)?),
                _ => return Err(RestoreOptions::unknown(kind, name)),
            }
        }
        Ok(how)
    }

    /// What the cluster has of names that a restored index may get.
    pub(crate) fn occupancy(&self, names: &Names) -> Occupancy {
        let all = names.all().map(|(_, name)| name);
        let met: Vec<&str> = all.filter(|name| self.may_make(name)).collect();
        if met.is_empty() {
            return Occupancy::Empty;
        }
        let shown = met[..met.len().min(3)].join(", ");
        let more = if met.len() > 3 { ", …" } else { "" };
        Occupancy::Holds(format!(
            "{} indices and data streams ({shown}{more}), of which those that the backup has too are replaced",
            met.len()
        ))
    }

    /// What of the cluster has one of the names `ours`, and has to go first. Refused where it may
    /// not.
    pub(crate) fn taken(
        &self,
        names: &Names,
        ours: &BTreeSet<String>,
        replace: bool,
    ) -> Result<Vec<(What, String)>> {
        let refused = |why: String| Err(Error::new(ErrorKind::Refused, why));
        if let Some(alias) = names.aliases.iter().find(|it| ours.contains(&it.name)) {
            return refused(format!(
                "`{}` is an alias in this cluster: delete it, or restore under another name",
                alias.name
            ));
        }
        let taken = names.all().filter(|(_, name)| ours.contains(*name));
        let taken: Vec<_> = taken.map(|(what, name)| (what, name.to_owned())).collect();
        match taken.first() {
            Some((_, name)) if !replace || self.conflict == Conflict::Fail => refused(format!(
                "`{name}` is there already: restore it under another name (`rename`), or agree to replace it"
            )),
            _ => Ok(taken),
        }
    }

    /// What an index of the backup is called when it is restored.
    pub(crate) fn renamed(&self, name: &str) -> String {
        match &self.rename {
            Some(rename) => rename.apply(name),
            None => name.to_owned(),
        }
    }

    /// Whether an index of this name may come from a backup.
    fn may_make(&self, name: &str) -> bool {
        let old = match &self.rename {
            Some(rename) => rename.undo(name),
            None => Some(name),
        };
        old.is_some_and(|old| self.indices.choose(old))
    }

    /// What is done to aliases, of what the backup says: `{"actions": [{"add": {..}}]}`.
    pub(crate) fn aliases(&self, said: &Value) -> Value {
        let default = match self.rename {
            Some(_) => Aliases::Skip,
            None => Aliases::Add,
        };
        let mut actions = Vec::new();
        let mut names = BTreeSet::new();
        for action in said["actions"].as_array().into_iter().flatten() {
            let Value::Object(mut add) = action["add"].clone() else {
                continue;
            };
            let text = |add: &Map<String, Value>, name| add.get(name)?.as_str().map(str::to_owned);
            let index = text(&add, "index").unwrap_or_default();
            if !self.indices.want(&index) {
                continue;
            }
            names.extend(text(&add, "alias"));
            add.insert("index".to_owned(), self.renamed(&index).into());
            actions.push(json!({"add": add}));
        }
        match self.aliases.unwrap_or(default) {
            Aliases::Add => {}
            Aliases::Skip => actions.clear(),
            Aliases::Swap => {
                let remove =
                    |name| json!({"remove": {"index": "*", "alias": name, "must_exist": false}});
                actions = names.into_iter().map(remove).chain(actions).collect();
            }
        }
        json!({"actions": actions})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_follow_the_indices_that_are_restored() {
        let said = json!({"actions": [
            {"add": {"index": "a", "alias": "x", "is_write_index": true}},
            {"add": {"index": "b", "alias": "x"}},
        ]});
        let mut how = Restoring {
            indices: Patterns::new(["a"]),
            ..Restoring::default()
        };
        let add = json!({"add": {"index": "a", "alias": "x", "is_write_index": true}});
        assert_eq!(how.aliases(&said), json!({"actions": [add]}));
        how.rename = Some(Rename::try_from("old-*".to_owned()).unwrap());
        assert_eq!(how.aliases(&said), json!({"actions": []}));
        how.aliases = Some(Aliases::Swap);
        assert_eq!(
            how.aliases(&said),
            json!({"actions": [
                {"remove": {"index": "*", "alias": "x", "must_exist": false}},
                {"add": {"index": "old-a", "alias": "x", "is_write_index": true}},
            ]})
        );
    }

    #[test]
    fn only_what_may_be_made_is_in_the_way() {
        let mut how = Restoring {
            indices: Patterns::new(["a*"]),
            ..Restoring::default()
        };
        assert!(how.may_make("ab") && !how.may_make("b"));
        how.rename = Some(Rename::try_from("old-*".to_owned()).unwrap());
        assert!(how.may_make("old-ab") && !how.may_make("ab"));
    }
}
