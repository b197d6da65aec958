//! How a request finds a model that is not loaded yet: it asks for it, waits, and looks again.

use super::{Models, catalogue::Key, catalogue::Outcome};
use crate::failure::{Failure, Kind};

/// Models that are loaded for one request, at most; more than one only where another version takes over meanwhile.
const MOST_LOADS: usize = 4;

/// The models as one request finds them, who waits for those that are not loaded.
pub(crate) struct Search {
    models: Models,
    loads: usize,
}

impl Models {
    /// A request begins to look for models.
    pub(crate) fn search(&self) -> Search {
        Search { models: self.clone(), loads: 0 }
    }
}

impl Search {
    /// Where to look.
    pub(crate) fn models(&self) -> Models {
        self.models.clone()
    }

    /// What was found; `None` once a model is loaded that was missing, so that it is to be looked for again.
    pub(crate) async fn settle<T>(&mut self, found: Result<T, Failure>) -> Result<Option<T>, Failure> {
        match found {
            Err(Failure { kind: Kind::NotLoaded(key), .. }) if self.loads < MOST_LOADS => {
                self.loads += 1;
                // While this one waits, the other may have to end.
                self.models.held = None;
                let served = self.load(key).await?;
                self.models.held = Some((key, served));
                Ok(None)
            }
            found => found.map(Some),
        }
    }

    async fn load(&self, key: Key) -> Outcome {
        self.models.registry.load(key).await
    }
}
