//! Containers that end with a node, by the label that names it.

use std::collections::HashMap;

use bollard::query_parameters::ListContainersOptionsBuilder;

use super::{Docker, EngineError, Operation, labels};
use crate::engine::Container;

impl Docker {
    /// The containers of a node that takes them with it, of whatever fleet it
    /// was when it made them.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn owned(&self, owner: &str) -> Result<Vec<Container>, EngineError> {
        let about = self.about_engine(Operation::List);
        let label = format!("{}={owner}", labels::OWNER);
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let client = self.client(&about)?;
        let found = self.ask(&about, client.list_containers(Some(options)));
        let mut owned = Vec::new();
        for summary in found.await? {
            if let Some(id) = summary.id
                && let Some(container) = self.inspect(&id).await?
            {
                owned.push(container);
            }
        }
        Ok(owned)
    }
}
