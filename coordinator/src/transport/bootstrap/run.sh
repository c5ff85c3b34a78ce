# Runs the agent in folder d with the words that follow: by its file, or, where files may not be run, from
# memory by python3 or perl (memfd_create with MFD_CLOEXEC). The rules for lines are those of prepare.sh.
run() { case $via in
    python3) python3 -c "import os,sys;f=os.memfd_create(\"agent\",1);o=os.fdopen(f,\"wb\",closefd=False);o.write(open(sys.argv[1],\"rb\").read());o.flush();os.execve(\"/proc/self/fd/%d\"%f,[\"agent\"]+sys.argv[2:],os.environ)" "$d/agent" "$@";;
    perl) case $(uname -m) in x86_64) c=319;; *) c=279;; esac;
        perl -e "(\$c,\$p)=splice(@ARGV,0,2);\$n=\"agent\";\$f=syscall(\$c,\$n,1);open(\$i,\"<\",\$p)or die;binmode \$i;\$/=undef;\$b=<\$i>;open(\$o,\">&=\",\$f)or die;syswrite(\$o,\$b)==length(\$b)or die;exec{\"/proc/self/fd/\$f\"}\"agent\",@ARGV;die" "$c" "$d/agent" "$@";;
    *) "$d/agent" "$@";; esac; };
