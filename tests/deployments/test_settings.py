"""Tests the placement options that Serve gets."""

from ray.serve.schema import DeploymentSchema

from deployments.settings import Placement


def test_a_pool_is_a_label_of_nodes():
    actor = Placement(pool="gpu").build_options()["ray_actor_options"]
    assert actor["label_selector"] == {"pool": "gpu"}
    assert "label_selector" not in Placement().build_options()["ray_actor_options"]


def test_replicas_that_spread_share_no_node():
    options = Placement(spread=True, replicas=3).build_options()
    schema = DeploymentSchema(name="x", **options)
    assert (schema.max_replicas_per_node, schema.num_replicas) == (1, 3)
    assert "max_replicas_per_node" not in Placement().build_options()
