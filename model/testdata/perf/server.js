function hash(text) { let h = 0; for (let i = 0; i < text.length; i++) h = (h * 31 + text.charCodeAt(i)) | 0; return h; }
class Router { match(path) { return /^\/v(\d+)\/(a|b);?$/.test(path) ? hash(path) : 0; } }
const router = new Router(); const end = Date.now() + 1500; let n = 0;
while (Date.now() < end) n += router.match('/v' + (n & 7) + '/a');
