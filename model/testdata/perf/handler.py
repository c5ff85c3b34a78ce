import re, json
def rewrite(path): return re.sub(r"/v(\d+)/", r"/api/\1/", path)
def access(n): return json.dumps({rewrite("/v%d/x" % i): i for i in range(n)})
import time
end = time.time() + 1.5
while time.time() < end: access(300)
