import sys, pathlib, subprocess, time, concurrent.futures, os
import crash
jar='/tmp/crash-jar.jar'
subprocess.run(['/work/wt/crash/tests/fake/make-fake-jar', jar], check=True)
crash.AdoptHalf.learn(jar)
c=crash.Crash(jar, pathlib.Path('/tmp/crash-keep'))
if sys.argv[1]=='list':
    for n in sys.argv[2:] or crash.SCENARIOS:
        t=time.time(); calls,total=c.list(n); print(n,len(calls),total,round(time.time()-t,2))
        if len(sys.argv)>2:
            for k in calls: print('  ',*k)
elif sys.argv[1]=='all':
    ps=[]
    for n in sys.argv[2:] or crash.SCENARIOS:
        calls,total=c.list(n)
        for k in calls:
            ps.append(crash.Point(n,'entry',k.n)); ps.append(crash.Point(n,'exit',k.n))
        for i in range(sum(k.detail.startswith('release') for k in calls)): ps.append(crash.Point(n,'hold',i+1))
    def one(p):
        t=time.time()
        try: k,w=c.run(p)
        except Exception as e: k,w=None,['EXC %r'%e]
        return p,k,w,time.time()-t
    t=time.time(); bad=0; none=0
    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get('J','10'))) as ex:
        for p,k,w,d in ex.map(one,ps):
            none+= k is None
            if w:
                bad+=1; print(p,k,round(d,1)); [print('     ',x[:400]) for x in w]; sys.stdout.flush()
    print(len(ps),'points',bad,'bad',none,'not reached',round(time.time()-t,1),'s')
else:
    for p in sys.argv[1:]:
        t=time.time(); k,w=c.run(crash.Point.parse(p)); print(p,k,w,round(time.time()-t,2))
