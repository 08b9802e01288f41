import pytest
import tensorflow as tf

from keras_lt.distribution import check_batch_size, make_strategy


def test_one_device_is_the_default_where_there_are_no_gpus():
    assert make_strategy("auto").num_replicas_in_sync == 1
    assert not isinstance(make_strategy("none"), tf.distribute.MirroredStrategy)


def test_mirrored_is_mirrored_on_a_single_device_too():
    strategy = make_strategy("mirrored", ["CPU:0"])
    assert isinstance(strategy, tf.distribute.MirroredStrategy)
    assert strategy.num_replicas_in_sync == 1


def test_unknown_strategy_is_answered_with_the_valid_ones():
    with pytest.raises(ValueError, match="'auto', 'none', 'mirrored'"):
        make_strategy("mirored")


def test_a_batch_must_divide_by_the_devices():
    class TwoReplicas:
        num_replicas_in_sync = 2

    check_batch_size(TwoReplicas, 8)
    with pytest.raises(ValueError, match="batch_size=7, 2 devices"):
        check_batch_size(TwoReplicas, 7)
