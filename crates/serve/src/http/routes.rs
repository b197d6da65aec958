//! The table of routes: what the server answers beside what its document says of it, so that
//! neither can be without the other.

use axum::{Router, routing::MethodRouter};

use super::{Shared, openapi::Operation};

/// Routes and what is told of them.
#[derive(Default)]
pub(super) struct Routes {
    router: Router<Shared>,
    entries: Vec<Entry>,
}

/// A path of the router, where `{*rest}` stands for all that follows.
struct Entry {
    path: String,
    operations: Vec<Operation>,
}

impl Routes {
    /// None yet.
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a path. `operations` is what it can be asked, each under a path that it covers.
    ///
    /// # Panics
    /// Nothing is told of the path, or something of another one: no server starts with such a table.
    pub(super) fn at(
        mut self,
        path: &str,
        methods: MethodRouter<Shared>,
        operations: impl IntoIterator<Item = Operation>,
    ) -> Self {
        let operations: Vec<Operation> = operations.into_iter().collect();
        assert!(!operations.is_empty(), "{path}: nothing is told of it");
        for operation in &operations {
            assert!(covers(path, operation.path()), "{path} does not cover {}", operation.path());
        }
        self.entries.push(Entry { path: path.to_owned(), operations });
        Self { router: self.router.route(path, methods), ..self }
    }

    /// Adds a path of a protocol's part that this server leaves out: it only says so.
    pub(super) fn left_out(self, path: &str, methods: MethodRouter<Shared>) -> Self {
        Self { router: self.router.route(path, methods), ..self }
    }

    /// Adds routes below a prefix.
    pub(super) fn nest(mut self, prefix: &str, routes: Routes) -> Self {
        self.entries.extend(routes.entries.into_iter().map(|Entry { path, operations }| Entry {
            path: format!("{prefix}{path}"),
            operations: operations.into_iter().map(|operation| operation.below(prefix)).collect(),
        }));
        Self { router: self.router.nest(prefix, routes.router), ..self }
    }

    /// Adds routes.
    pub(super) fn merge(mut self, routes: Routes) -> Self {
        self.entries.extend(routes.entries);
        Self { router: self.router.merge(routes.router), ..self }
    }

    /// The router.
    pub(super) fn into_router(self) -> Router<Shared> {
        self.router
    }

    /// Everything that can be asked.
    pub(super) fn into_operations(self) -> Vec<Operation> {
        self.entries.into_iter().flat_map(|entry| entry.operations).collect()
    }
}

fn covers(path: &str, told: &str) -> bool {
    match path.split_once("{*") {
        Some((root, _)) => told.starts_with(root),
        None => told == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_covers_itself_and_what_its_wildcard_stands_for() {
        assert!(covers("/models/{model}", "/models/{model}"));
        assert!(covers("/models/{*rest}", "/models/{model}/infer"));
        assert!(!covers("/models/{model}", "/models/{name}"));
        assert!(!covers("/models/{*rest}", "/model"));
    }
}
