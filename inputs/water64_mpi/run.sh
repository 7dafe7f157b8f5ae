# i-PI, two processes of the teacher and one of the student: one job, without sockets
mpiexec -n 1 i-pi input.xml \
    : -n 2 mts serve so3lr --mpi --mpi-name teacher --structure start.extxyz --threads 1 \
    : -n 1 mts serve student:water --mpi --mpi-name student --structure start.extxyz --threads 1
