//! Which ids of the IAB Ad Product Taxonomy 2.0 does a product have?
//!
//! `iab.tsv` maps (department, category) by hand, the first rule that fits wins and `*` fits all. A product
//! gets the named node and its ancestors, most specific first, so that blocking a parent blocks its children;
//! one that no rule fits has no id. The ids are of the IAB Tech Lab's taxonomy, licensed CC BY 3.0.

use std::collections::HashMap;

use super::source::Product;

const RULES: &str = include_str!("iab.tsv");

/// The rules and the parents, parsed.
#[derive(Debug)]
pub struct Taxonomy {
    rules: Vec<[&'static str; 3]>,
    parents: HashMap<&'static str, &'static str>,
}

impl Taxonomy {
    pub fn new() -> Self {
        let mut rules = Vec::new();
        let mut parents = HashMap::new();
        for line in RULES.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields.as_slice() {
                ["parent", child, parent] => {
                    parents.insert(*child, *parent);
                }
                [department, category, id] => rules.push([*department, *category, *id]),
                _ => {}
            }
        }
        Self { rules, parents }
    }

    /// Ids, most specific first.
    pub fn ids(&self, product: &Product) -> Vec<String> {
        let fits = |rule: &str, text: &str| rule == "*" || rule == text;
        let rule = self.rules.iter().find(|[d, c, _]| fits(d, &product.department) && fits(c, &product.category));
        let mut next = rule.map(|[_, _, id]| *id);
        let mut ids = Vec::new();
        while let Some(id) = next {
            ids.push(id.to_owned());
            next = self.parents.get(id).copied();
        }
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(department: &str, category: &str) -> Vec<String> {
        Taxonomy::new().ids(&Product { department: department.into(), category: category.into(), ..Product::default() })
    }

    #[test]
    fn a_product_has_its_node_and_the_ancestors() {
        assert_eq!(ids("GROCERY", "BEERS/ALES"), ["1004", "1002"]);
        assert_eq!(ids("GROCERY", "SOFT DRINKS"), ["1132", "1131", "1123"]);
        assert_eq!(ids("PRODUCE", "no such category"), ["1165", "1123"]);
        assert!(ids("CHARITABLE CONT", "").is_empty());
    }

    #[test]
    fn every_line_is_a_rule_or_a_parent() {
        for line in RULES.lines().filter(|line| !line.starts_with('#')) {
            let fields: Vec<&str> = line.split('\t').collect();
            assert_eq!(fields.len(), 3, "{line}");
            assert!(fields[2].parse::<u32>().is_ok(), "{line}");
        }
    }
}
