//! The configuration of a node of a development cluster: several nodes on one machine.
//!
//! Node `i` takes three ports in a row, from `base_port + 10 * i`:
//!
//! ```text
//!   7400  7401  7402        7410  7411  7412        7420  7421  7422
//!   frames text admin       frames text admin       frames text admin
//!   node-0                  node-1                  node-2
//! ```

use super::Config;
use crate::limits;
use std::path::Path;

impl Config {
    /// The text of the configuration file of node `index` of `nodes`, with its data under
    /// `dir/node-{index}`. Every node knows all others as seeds, and none serves before all have
    /// met.
    ///
    /// The ports must fit: `base_port + 10 * nodes` is at most 65,536.
    pub fn for_dev(index: usize, nodes: usize, dir: &Path, base_port: u16) -> String {
        let port = |node: usize, offset: usize| usize::from(base_port) + 10 * node + offset;
        let seeds: Vec<String> =
            (0..nodes).map(|node| format!("\"127.0.0.1:{}\"", port(node, 0))).collect();
        // Written by TOML itself, so that any path is quoted as it must be.
        let folder = dir.join(format!("node-{index}"));
        let data_dir = toml::Value::from(folder.to_string_lossy().as_ref());
        format!(
            "# Node {index} of a development cluster of {nodes}. Every setting is explained in\n\
             # config/ringdove.toml.\n\
             \n\
             [node]\n\
             name = \"node-{index}\"\n\
             data_dir = {data_dir}\n\
             zone = \"default\"\n\
             \n\
             [cluster]\n\
             seeds = [{seeds}]\n\
             initial_members = {nodes}\n\
             replicas = {replicas}\n\
             \n\
             [listen]\n\
             address = \"127.0.0.1:{frames}\"\n\
             text = \"127.0.0.1:{text}\"\n\
             admin = \"127.0.0.1:{admin}\"\n",
            seeds = seeds.join(", "),
            replicas = nodes.clamp(1, usize::from(limits::REPLICAS_DEFAULT)),
            frames = port(index, 0),
            text = port(index, 1),
            admin = port(index, 2),
        )
    }
}
