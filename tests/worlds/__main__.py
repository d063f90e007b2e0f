import sys, time, logging, gc
from collections import Counter
from tests.worlds.world import World
from tests.worlds.geometry import small_files

def bugs():
    from tests.worlds.bugs import BUGS
    logging.disable(logging.CRITICAL); gc.disable()
    total=time.process_time()
    with small_files():
        for bug in BUGS:
            if len(sys.argv)>2 and sys.argv[2] not in bug.name: continue
            t=time.process_time()
            with bug.planted():
                for n in range(400):
                    o=World(n, kind=bug.kind).run()
                    if o.wrong: break
            gc.collect()
            print(f'{bug.name:55} {n+1:4} {time.process_time()-t:5.2f}s', str(o.wrong[:1])[:110], flush=True)
    print(time.process_time()-total)
def main():
    if sys.argv[1]=='bugs': return bugs()
    logging.disable(logging.CRITICAL)
    first, count = int(sys.argv[1]), int(sys.argv[2])
    verbose = len(sys.argv) > 3
    if verbose: logging.disable(logging.NOTSET)
    gc.disable()
    started = time.process_time()
    faults=Counter(); reqs=sigs=ref=rest=turns=0; bad=0
    with small_files():
        for seed in range(first, first+count):
            outcome = World(seed, print if verbose else None).run()
            faults += outcome.faults; reqs+=outcome.requests; sigs+=outcome.signatures; ref+=outcome.refusals; rest+=outcome.restarts; turns+=outcome.turns
            if outcome.wrong:
                bad+=1
                if bad<12: print("make world SEED=%d" % seed, outcome.kind, dict(outcome.faults), outcome.wrong[:3])
            if seed%50==0: gc.collect()
    took=time.process_time()-started
    print(f"{took/count*1e3:.2f} ms/world", reqs/count, sigs/count, ref/count, rest/count, turns/count, "bad", bad); print(faults)
main()
