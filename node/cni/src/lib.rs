//! The CNI plugin's protocol: what the runtime asks and what the agent answers.
