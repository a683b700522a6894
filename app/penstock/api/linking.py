"""From names to ids: the jobs of a workflow, linked with those that they depend on.

In: jobs that were taken in one by one, and what the workflow has already. Out: the same jobs with
their parents, or a Problem that names every fault of the graph. Large graphs are looked at in a
thread, where pure Python hands the loop its turn.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from penstock.api.blame import refusal
from penstock.api.pace import Pace
from penstock.api.problems import Fault
from penstock.domain import graph
from penstock.domain.ids import JobId
from penstock.domain.job import NewJob
from penstock.store.workflow_reads import Member

_FEW = 500  # jobs and edges that are looked at on the loop: half a ms


async def linked(jobs: list[NewJob], there: Mapping[str, Member], pace: Pace) -> list[NewJob]:
    """The jobs with their parents' ids. Raises 422 for what is no graph that can run."""
    async with pace:
        weight = len(jobs) + sum(len(job.depends_on) for job in jobs)
        if weight <= _FEW:
            found = faults_of(jobs, there)
        else:
            found = await asyncio.to_thread(faults_of, jobs, there)
        if found:
            raise refusal(found)
        ids = ids_by_name(jobs, there)
        for i, job in enumerate(jobs):
            jobs[i] = link(job, ids)
            if pace.is_over:
                await pace.breathe()
    return jobs


def faults_of(jobs: Sequence[NewJob], there: Mapping[str, Member]) -> list[Fault]:
    """What is wrong with the graph of jobs that have names."""
    nodes = [graph.Node(job.name or "", job.depends_on, job.run_if) for job in jobs]
    skippable = {name: member.is_skippable for name, member in there.items()}
    return [Fault(*fault) for fault in graph.faults(nodes, graph.There(skippable))]


def ids_by_name(jobs: Iterable[NewJob], there: Mapping[str, Member]) -> dict[str, JobId]:
    ids = {name: member.id for name, member in there.items()}
    return ids | {job.name: job.id for job in jobs if job.name}


def link(job: NewJob, ids: Mapping[str, JobId]) -> NewJob:
    """The job with the ids of those that it names."""
    if not job.depends_on:
        return job
    return replace(job, parents=tuple(ids[name] for name in job.depends_on))
