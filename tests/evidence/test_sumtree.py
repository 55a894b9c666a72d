"""The sum tree: equal to the slow reference, and every attack of reference/attestation.md 3.2 refused."""

from hashlib import sha256

import pytest
from evidence_reference import SlowSumTree, SumLeaf
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.sumtree import SumNode, leaf_node, parent_node, sum_root, verify_opening

LEAF_LIMIT, NODE_LIMIT = 2**112, 2**127


def commitment(number):
    return sha256(b"salted group %d" % number).digest()


def tree_of(rows):
    return SlowSumTree(tuple(SumLeaf(tuple(row), commitment(number)) for number, row in enumerate(rows)))


def siblings(tree, index):
    return [SumNode(sums, digest) for sums, digest in tree.opening(index)]


def verify(tree, index, /, **changed):
    """The opening of one leaf, with anything in it changed."""
    parts = {
        "size": len(tree.leaves),
        "index": index,
        "sums": tree.leaves[index].sums,
        "commitment": tree.leaves[index].commitment,
        "siblings": siblings(tree, index),
        "total": tree.total,
        "root": tree.root,
    } | changed
    leaf = leaf_node(parts["size"], parts["index"], parts["sums"], parts["commitment"])
    verify_opening(
        parts["size"], parts["index"], leaf, parts["siblings"], total=parts["total"], root=parts["root"]
    )


def refused(tree, index, /, **changed):
    with pytest.raises(EvidenceError) as refusal:
        verify(tree, index, **changed)
    assert refusal.value.step == "sum tree"
    return refusal.value.reason


def test_every_leaf_of_every_tree_up_to_64():
    for size in range(1, 65):
        tree = tree_of([(number, number * 7 + 1) for number in range(size)])
        nodes = [(leaf_node(size, i, leaf.sums, leaf.commitment)) for i, leaf in enumerate(tree.leaves)]
        assert sum_root(size, folded(size, nodes)) == tree.root
        for index in {0, 1, size // 2, size - 2, size - 1} & set(range(size)):
            verify(tree, index)


def folded(size, nodes):
    """The library's own blocks, put together in RFC 6962's shape."""
    if len(nodes) == 1:
        return nodes[0]
    half = 1 << (len(nodes) - 1).bit_length() - 1
    return parent_node(size, folded(size, nodes[:half]), folded(size, nodes[half:]))


rows = st.integers(1, 6).flatmap(
    lambda width: st.lists(
        st.tuples(*[st.integers(0, 2**100) | st.sampled_from([0, 1, LEAF_LIMIT - 1])] * width),
        min_size=1,
        max_size=39,
    )
)


@given(rows, st.data())
@settings(max_examples=60, deadline=None)
def test_openings_and_what_is_changed_in_them(rows, data):
    tree = tree_of(rows)
    index = data.draw(st.integers(0, len(rows) - 1))
    verify(tree, index)
    leaf = tree.leaves[index]
    component = data.draw(st.integers(0, len(leaf.sums) - 1))

    def more(sums, by=1):
        return (*sums[:component], sums[component] + by, *sums[component + 1 :])

    refused(tree, index, total=more(tree.total))
    refused(tree, index, sums=more(leaf.sums))
    refused(tree, index, commitment=commitment(-1))
    refused(tree, index, root=sha256(tree.root).digest())
    path = siblings(tree, index)
    refused(tree, index, siblings=[*path, SumNode((0,) * len(leaf.sums), bytes(32))])
    if path:
        place = data.draw(st.integers(0, len(path) - 1))
        refused(tree, index, siblings=path[:-1])
        for changed in (
            SumNode(more(path[place].sums), path[place].hash),
            SumNode(path[place].sums, sha256(path[place].hash).digest()),
            SumNode((*path[place].sums, 0), path[place].hash),
            SumNode(path[place].sums[1:], path[place].hash),
            SumNode(path[place].sums, path[place].hash[:31]),
        ):
            refused(tree, index, siblings=[*path[:place], changed, *path[place + 1 :]])
        # What is taken from a sibling and given to the leaf keeps the total, and not the root.
        moved = [
            SumNode(more(path[place].sums, -1), path[place].hash) if n == place else one
            for n, one in enumerate(path)
        ]
        refused(tree, index, sums=more(leaf.sums), siblings=moved)
        if len(path) > 1 and path[0] != path[1]:
            refused(tree, index, siblings=[path[1], path[0], *path[2:]])


# The attacks of the proof-of-liabilities literature


def naive_node(left, right):
    """Maxwell and Todd's first tree: the node hashes its total, not the two parts (Hu, Zhang, Guo 2018)."""
    total = left[0] + right[0]
    return total, sha256(total.to_bytes(16, "big") + left[1] + right[1]).digest()


def naive_accepts(value, own, sibling, *, own_is_left, total, root):
    """What a member checks there: shown its sibling's value and hash, does it come to the root?"""
    node = naive_node((value, own), sibling) if own_is_left else naive_node(sibling, (value, own))
    return node == (total, root)


def test_107_shown_as_100_satisfies_both_members_of_a_naive_tree():
    """100 and 7 make 107. The prover says 100, and shows each member another value of the other one."""
    a, b = (100, sha256(b"a").digest()), (7, sha256(b"b").digest())
    shown = max(a[0], b[0])
    root = sha256(shown.to_bytes(16, "big") + a[1] + b[1]).digest()
    assert naive_accepts(*a, (shown - a[0], b[1]), own_is_left=True, total=shown, root=root)
    assert naive_accepts(*b, (shown - b[0], a[1]), own_is_left=False, total=shown, root=root)


def test_107_shown_as_100_is_refused_here():
    """Whichever root the prover publishes, at most one of the two members can be satisfied."""
    honest = tree_of([(100,), (7,)])
    first, second = (SumNode(leaf.sums, honest.hash(n, n + 1)) for n, leaf in enumerate(honest.leaves))
    verify(honest, 0)
    verify(honest, 1)
    for one, other in ((100, 0), (93, 7)):
        # A root over children of which one is understated: its own member refuses, whatever it is shown.
        top = parent_node(2, SumNode((one,), first.hash), SumNode((other,), second.hash))
        root = sum_root(2, top)
        shown = [(0, SumNode((0,), second.hash)), (1, SumNode((93,), first.hash))]
        satisfied = set()
        for index, sibling in shown:
            try:
                verify(honest, index, siblings=[sibling], total=(100,), root=root)
            except EvidenceError as refusal:
                assert refusal.step == "sum tree"
            else:
                satisfied.add(index)
        assert len(satisfied) == 1  # the prover can make a root that one of them takes, never both
    # The very openings of the naive attack, under the honest tree's root and under the understated one.
    understated = sum_root(2, SumNode((100,), parent_node(2, first, second).hash))
    for root in (honest.root, understated):
        refused(honest, 0, siblings=[SumNode((0,), second.hash)], total=(100,), root=root)
        refused(honest, 1, siblings=[SumNode((93,), first.hash)], total=(100,), root=root)
        refused(honest, 0, total=(100,), root=root)
        refused(honest, 1, total=(100,), root=root)


def test_a_negative_leaf_cancels_nothing():
    honest = tree_of([(100,), (7,)])
    for negative in (-7, -1, -(2**127), -(2**128) + 7):
        with pytest.raises(EvidenceError, match="sums from 0"):
            leaf_node(3, 2, (negative,), commitment(2))
        refused(honest, 0, siblings=[SumNode((negative,), siblings(honest, 0)[0].hash)])


def test_nothing_wraps():
    assert leaf_node(1, 0, (LEAF_LIMIT - 1,), commitment(0)).sums == (LEAF_LIMIT - 1,)
    for sums in ((LEAF_LIMIT,), (NODE_LIMIT,), (2**128 - 7,), (2**128,), (1, LEAF_LIMIT)):
        with pytest.raises(EvidenceError, match="sums from 0"):
            leaf_node(1, 0, sums, commitment(0))
    half = SumNode((NODE_LIMIT // 2,), commitment(1))
    edge = SumNode((NODE_LIMIT // 2 - 1,), commitment(2))
    assert sum_root(2, parent_node(2, half, edge))
    with pytest.raises(EvidenceError, match="sums from 0"):  # 2^127: the top is checked too
        sum_root(2, parent_node(2, half, half))
    with pytest.raises(EvidenceError, match="sums from 0"):
        parent_node(3, parent_node(3, half, half), edge)
    honest = tree_of([(100,), (7,)])
    refused(honest, 0, siblings=[SumNode((2**128 + 7,), siblings(honest, 0)[0].hash)])


def test_2_to_15_leaves_of_the_largest_size_fit():
    """reference/attestation.md 3.2. Doubled from one leaf: the sums are what matters."""
    node = SumNode((LEAF_LIMIT - 1,), commitment(0))
    for _ in range(15):
        node = parent_node(2**15, node, node)
    assert sum_root(2**15, node)
    with pytest.raises(EvidenceError, match="sums from 0"):
        sum_root(2**16, parent_node(2**16, node, node))


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 13])
def test_index_and_size_are_bound(size):
    """A leaf in another place, a tree said to be larger or smaller, one leaf shown as the whole tree."""
    tree = tree_of([(5,)] * size)  # equal sums: only the place tells the leaves apart
    for index in range(size):
        for other in range(size):
            if other != index:
                refused(tree, other, sums=(5,), commitment=commitment(index), siblings=siblings(tree, other))
                refused(tree, index, index=other)
        for lie in range(1, 20):
            if lie != size:
                refused(tree, index, size=lie)
        refused(tree, index, size=1, index=0, siblings=[], total=(5,))
        refused(tree, index, index=-1)
        refused(tree, index, index=size)


def test_padded_and_single_entry_trees():
    """Leaves of nothing beside the real ones, and a node shown as if it were a leaf: another tree each."""
    tree = tree_of([(100,), (7,)])
    padded = tree_of([(100,), (7,), (0,), (0,)])
    assert padded.total == tree.total
    assert padded.root != tree.root
    refused(tree, 0, siblings=siblings(padded, 0))
    refused(padded, 0, size=2, siblings=siblings(padded, 0)[:1])
    # The inner node's hash as a leaf's commitment: kinds are apart.
    inner = tree.hash(0, 2)
    refused(tree, 0, size=1, index=0, sums=(107,), commitment=inner, siblings=[])
    assert sum_root(2, SumNode(tree.total, inner)) == tree.root != inner


def test_swapped_siblings():
    tree = tree_of([(number,) for number in range(8)])
    one, two, three = siblings(tree, 3)
    for order in ((two, one, three), (three, two, one), (one, three, two)):
        refused(tree, 3, siblings=list(order))
    left, right = (SumNode(leaf.sums, tree.hash(n, n + 1)) for n, leaf in enumerate(tree.leaves[:2]))
    assert parent_node(8, left, right) != parent_node(8, right, left)


def test_components_do_not_change_places():
    tree = tree_of([(1, 2), (3, 4)])
    refused(tree, 0, sums=(2, 1))
    refused(tree, 0, total=tree.total[::-1])
    refused(tree, 0, total=tree.total[:1])
    refused(tree, 0, sums=(1,))
    # Two numbers of 16 bytes are not one of 32, nor are two components the same tree as one.
    assert leaf_node(1, 0, (0, 1), commitment(0)).hash != leaf_node(1, 0, (1,), commitment(0)).hash


@pytest.mark.parametrize("components", [0, 65, 70_000])
def test_a_tree_has_1_to_64_components(components):
    with pytest.raises(EvidenceError, match="no tree has"):
        leaf_node(1, 0, (0,) * components, commitment(0))


@pytest.mark.parametrize(
    ("size", "index"), [(0, 0), (-1, 0), (1, 1), (2**63, 0), (2**64, 2**64 - 1), (2**80, 5), (2**80, 2**70)]
)
def test_no_such_leaf(size, index):
    with pytest.raises(EvidenceError, match="sum tree"):
        leaf_node(size, index, (0,), commitment(0))
    with pytest.raises(EvidenceError, match="sum tree"):
        verify_opening(size, index, SumNode((0,), bytes(32)), [], total=(0,), root=bytes(32))
    if not 0 < size < 2**63:
        with pytest.raises(EvidenceError, match="no tree has"):
            sum_root(size, SumNode((0,), bytes(32)))


def test_a_path_has_the_length_of_its_place():
    """Named as such, before anything is hashed; no leaf stands left of the first."""
    tree = tree_of([(5,)] * 5)
    for index in range(5):
        path = siblings(tree, index)
        for other in (path[:-1], [*path, path[0]], []):
            assert "do not lead up" in refused(tree, index, siblings=other)
    leaf = leaf_node(5, 0, (5,), commitment(0))
    for index in (-1, -5, 5):
        for path in ([], siblings(tree, 0), siblings(tree, 4)):
            with pytest.raises(EvidenceError, match="do not lead up"):
                verify_opening(5, index, leaf, path, total=(25,), root=tree.root)


def test_children_have_the_same_components():
    one, two = SumNode((1,), commitment(0)), SumNode((1, 2), commitment(1))
    for left, right in ((one, two), (two, one)):
        with pytest.raises(EvidenceError, match=r"expected [12] sums"):
            parent_node(2, left, right)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_commitments_of_other_lengths(length):
    with pytest.raises(EvidenceError, match="32 bytes"):
        leaf_node(1, 0, (0,), bytes(length))
