"""Phantoms to train on: slices a second of one core, and of a pool of processes.

Of one core, the seconds are those that the process computes, so other load counts little.
"""

import argparse
import statistics
import time

from preprocessing.phantoms.teaching import draw_teaching_slices

SIZES = (128, 256, 512)
NUM_SLICES = 80
ROUNDS = 3


def rate_of_one_core(image_size: int) -> list[float]:
    """Gives slices a second of each round, one process."""
    rates = []
    for seed in range(ROUNDS):
        start = time.process_time()
        draw_teaching_slices(num_slices=NUM_SLICES, image_size=image_size, seed=seed)
        rates.append(NUM_SLICES / (time.process_time() - start))
    return rates


def rate_of_processes(image_size: int, num_processes: int) -> float:
    """Gives slices a second of the wall clock, the start of the processes included."""
    start = time.perf_counter()
    draw_teaching_slices(
        num_slices=4 * NUM_SLICES, image_size=image_size, seed=0, num_processes=num_processes
    )
    return 4 * NUM_SLICES / (time.perf_counter() - start)


def main() -> None:
    """Prints a table, and with --processes a line about the pool."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--processes", type=int, default=0, help="measure a pool of so many too")
    flags = parser.parse_args()
    draw_teaching_slices(num_slices=4, image_size=64, seed=0)
    print("| height and width | slices a second a core | lowest, highest |")
    print("| ---: | ---: | ---: |")
    for image_size in SIZES:
        rates = rate_of_one_core(image_size)
        low, middle, high = min(rates), statistics.median(rates), max(rates)
        print(f"| {image_size} | {middle:.0f} | {low:.0f}, {high:.0f} |")
    if flags.processes:
        rate = rate_of_processes(256, flags.processes)
        print(f"\n{flags.processes} processes, 256: {rate:.0f} slices a second, start included")


if __name__ == "__main__":
    main()
